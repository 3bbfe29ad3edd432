//! The arrays of a foreign file in a network: all that does not fit, at once.

use std::collections::BTreeSet;

use super::container::check_sum;
use super::pickle::printable;
use super::tensors::Dtype;
use super::{Array, Checkpoint, ImportError, Imported, State, listed, normalise, twins};
use crate::model::network::{BATCH_NORM_EPSILON, Network};

impl Checkpoint {
    /// The state of a network from this file. The network's own normalisation is not used.
    ///
    /// # Errors
    /// [`ImportError::Mismatch`] with all arrays that do not fit, [`ImportError::Normalisation`] if the normalisation is
    /// unknown or contradictory, [`ImportError::Format`] if an array is damaged, and [`ImportError::Numbers`] if values
    /// are not finite.
    pub fn fit(&self, network: &Network) -> Result<Imported, ImportError> {
        let mut notes = self.notes.clone();
        let extra = self.compare(network)?;
        if !extra.is_empty() {
            notes.push(format!("left out, as they are not part of {}: {}", network.architecture, listed(&extra)));
        }
        let given = self.options.normalize.as_ref();
        let normalisation = normalise::resolve(self.normalisation.as_ref(), given, network.input.channels)
            .map_err(|what| ImportError::Normalisation { path: self.path.clone(), what })?;
        if let Some((values, names)) = &self.normalisation {
            notes.push(format!("images are normalised by {names} of the file: {values}"));
        }
        let (state, converted) = self.numbers(network)?;
        if !converted.is_empty() {
            let types: Vec<&str> = converted.into_iter().collect();
            notes.push(format!("converted to float32 from {}", types.join(" and ")));
        }
        state.check(network).map_err(|source| ImportError::Numbers { path: self.path.clone(), source })?;
        notes.push(format!(
            "a state dict records neither the activation function nor the constant of batch norm; ReLU and \
             {BATCH_NORM_EPSILON:e} are assumed"
        ));
        Ok(Imported { state, normalisation, notes })
    }

    /// Compares names and shapes. Returns the arrays that the network does not have, if they may be left out.
    fn compare(&self, network: &Network) -> Result<Vec<String>, ImportError> {
        let specs = network.state_specs();
        let (mut missing, mut other, mut damaged) = (Vec::new(), Vec::new(), Vec::new());
        for spec in &specs {
            match self.arrays.get(&spec.name) {
                None => missing.push(format!("'{}' {:?}", spec.name, spec.shape)),
                Some(Err(what)) => damaged.push(format!("'{}' {what}", spec.name)),
                Some(Ok(tensor)) if tensor.shape != spec.shape => {
                    other.push(format!("'{}' {:?}, expected {:?}", spec.name, tensor.shape, spec.shape));
                }
                Some(Ok(_)) => {}
            }
        }
        let ours: BTreeSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let extra =
            self.arrays.iter().filter(|(name, _)| !ours.contains(name.as_str())).map(|(name, entry)| match entry {
                Ok(tensor) => format!("'{}' {:?}", printable(name), tensor.shape),
                Err(_) => format!("'{}'", printable(name)),
            });
        let extra: Vec<String> = extra.collect();
        let refused = !extra.is_empty() && !self.options.ignore_extra;
        if missing.is_empty() && other.is_empty() && damaged.is_empty() && !refused {
            return Ok(extra);
        }
        let mut parts = Vec::new();
        let mut add = |what: &str, names: &[String]| {
            if !names.is_empty() {
                parts.push(format!("{what} ({}): {}", names.len(), listed(names)));
            }
        };
        add("missing", &missing);
        add("of another shape", &other);
        add("unreadable", &damaged);
        add("not part of it", &extra);
        let found = self.arrays.iter().filter_map(|(name, e)| Some((name.as_str(), e.as_ref().ok()?.shape.as_slice())));
        let known = twins::diagnose(&found.collect(), network);
        let only_extra = missing.is_empty() && other.is_empty() && damaged.is_empty();
        let advice = match known {
            Some(known) => Some(known),
            None if only_extra => Some("--ignore-extra leaves out what is not part of the network".into()),
            None => None,
        };
        parts.extend(advice);
        let (path, architecture) = (self.path.clone(), network.architecture.clone());
        Err(ImportError::Mismatch { path, architecture, what: parts.join("; ") })
    }

    /// The numbers of all arrays of the network, and the types other than `float32` that they had.
    fn numbers(&self, network: &Network) -> Result<(State, BTreeSet<&'static str>), ImportError> {
        let mut state = State::default();
        let mut converted = BTreeSet::new();
        // Several arrays may share a storage, whose sum is computed once.
        let mut checked = BTreeSet::new();
        for spec in network.state_specs() {
            let Some(Ok(tensor)) = self.arrays.get(&spec.name) else { continue };
            let damaged =
                |what: String| ImportError::Format { path: self.path.clone(), what: format!("'{}' {what}", spec.name) };
            if checked.insert(tensor.storage.range.start) {
                check_sum(&tensor.storage, &self.bytes).map_err(damaged)?;
            }
            let data = tensor.values(&self.bytes).map_err(damaged)?;
            converted.extend(match tensor.dtype {
                Dtype::F16 => Some("float16"),
                Dtype::BF16 => Some("bfloat16"),
                Dtype::F64 => Some("float64"),
                Dtype::F32 | Dtype::Other(..) => None,
            });
            state.0.insert(spec.name, Array { shape: spec.shape, data });
        }
        Ok((state, converted))
    }
}
