//! The queue of updates for the window.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::Update;

/// Largest number of batch updates that are kept until they are fetched.
const BATCHES: usize = 4096;

/// An update that may replace older ones.
pub(super) trait Queued: Sized {
    /// Removes updates that this one supersedes from those that were not fetched yet.
    fn supersede(&self, waiting: &mut VecDeque<Self>);
}

/// See the [module](self).
pub(super) struct Mailbox<T = Update> {
    waiting: Mutex<VecDeque<T>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl<T> std::fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

impl Queued for Update {
    fn supersede(&self, waiting: &mut VecDeque<Self>) {
        match self {
            Self::Examples(_) => waiting.retain(|old| !matches!(old, Self::Examples(_))),
            Self::Cell(_) => waiting.retain(|old| !matches!(old, Self::Cell(_))),
            Self::Sought(_) => waiting.retain(|old| !matches!(old, Self::Sought(_))),
            Self::Evaluating { .. } => waiting.retain(|old| !matches!(old, Self::Evaluating { .. })),
            Self::Batch(_) => {
                let is_batch = |old: &Self| matches!(old, Self::Batch(_));
                if waiting.iter().filter(|old| is_batch(old)).count() >= BATCHES {
                    let oldest = waiting.iter().position(is_batch);
                    oldest.and_then(|oldest| waiting.remove(oldest));
                }
            }
            // Drop phases that ended before they were fetched, back to the last update that is meaningful on its own.
            Self::Phase(_) => {
                let passing = |old: &Self| {
                    matches!(old, Self::Phase(_) | Self::Batch(_) | Self::Examples(_) | Self::Evaluating { .. })
                };
                let kept = waiting.iter().rposition(|old| !passing(old)).map_or(0, |last| last + 1);
                let recent = waiting.split_off(kept);
                waiting.extend(recent.into_iter().filter(|old| !matches!(old, Self::Phase(_))));
            }
            _ => {}
        }
    }
}

impl<T: Queued> Mailbox<T> {
    pub(super) fn new(wake: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { waiting: Mutex::default(), wake }
    }

    /// Adds an update and removes older ones that it supersedes.
    pub(super) fn put(&self, update: T) {
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            update.supersede(&mut waiting);
            waiting.push_back(update);
        }
        (self.wake)();
    }

    /// Takes everything, oldest first.
    pub(super) fn take(&self) -> Vec<T> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *waiting).into()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::worker::Phase;

    #[test]
    fn newer_updates_replace_unfetched_ones_and_the_rest_keeps_its_order() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let mailbox = Mailbox::new(Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        }));
        for done in 0..3 {
            mailbox.put(Update::Phase(Phase::Attack));
            mailbox.put(Update::Phase(Phase::Update));
            mailbox.put(Update::Evaluating { done, total: 3 });
            mailbox.put(Update::Warning(done.to_string()));
        }
        let text: Vec<String> = mailbox.take().iter().map(|update| format!("{update:?}")).collect();
        let expected = [
            "Phase(Update)",
            "Warning(\"0\")",
            "Phase(Update)",
            "Warning(\"1\")",
            "Phase(Update)",
            "Evaluating { done: 2, total: 3 }",
            "Warning(\"2\")",
        ];
        assert_eq!(text, expected);
        assert_eq!(calls.load(Ordering::Relaxed), 12);
        assert!(mailbox.take().is_empty());
    }
}
