//! Durations of frames.

use std::time::Duration;

/// Number of frames kept: about three minutes at 60 frames per second.
const FRAMES: usize = 10_000;

/// How long the newest frames took to build.
#[derive(Debug, Clone, Default)]
pub(super) struct FrameTimes {
    times: std::collections::VecDeque<Duration>,
}

impl FrameTimes {
    /// Adds a frame.
    pub(super) fn add(&mut self, time: Duration) {
        if self.times.len() == FRAMES {
            self.times.pop_front();
        }
        self.times.push_back(time);
    }

    /// Number of frames kept.
    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    /// The quantile `share` of the frame times, such as 0.99; `None` if there are no frames.
    pub(super) fn quantile(&self, share: f64) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.times.iter().copied().collect();
        sorted.sort_unstable();
        let rank = (share.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_times() {
        let mut times = FrameTimes::default();
        assert_eq!(times.quantile(0.5), None);
        (1..=100).rev().for_each(|ms| times.add(Duration::from_millis(ms)));
        assert_eq!(times.quantile(0.5), Some(Duration::from_millis(50)));
        assert_eq!(times.quantile(0.99), Some(Duration::from_millis(99)));
        assert_eq!(times.quantile(1.0), Some(Duration::from_millis(100)));
        assert_eq!(times.len(), 100);
    }
}
