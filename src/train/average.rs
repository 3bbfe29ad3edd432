//! Averages of the weights over epochs (CFA, Wei et al. 2023; inherited by FAIR-TAT).

use crate::model::State;

/// `θ̄ ← d · θ̄ + (1 - d) · θ` over the whole state dict, running statistics included. The first update copies `θ`.
#[derive(Debug, Clone, Default)]
pub struct Average {
    state: Option<State>,
}

impl Average {
    /// Continues a saved average, or starts a new one.
    pub fn new(state: Option<State>) -> Self {
        Self { state }
    }

    /// Adds one epoch.
    pub fn update(&mut self, model: &State, decay: f64) {
        match &mut self.state {
            None => self.state = Some(model.clone()),
            Some(average) => average.average_with(model, decay as f32),
        }
    }

    /// The averaged weights. `None` before the first update.
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Array;

    fn state(value: f32) -> State {
        State([("a".to_owned(), Array { shape: vec![1], data: vec![value] })].into())
    }

    #[test]
    fn copies_then_averages() {
        let mut average = Average::default();
        assert_eq!(average.state(), None);
        average.update(&state(1.0), 0.75);
        average.update(&state(5.0), 0.75);
        assert_eq!(average.state(), Some(&state(2.0)));
    }
}
