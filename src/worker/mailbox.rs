//! The queue of updates for the window.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::Update;

/// Largest number of batch updates that are kept until they are fetched.
const BATCHES: usize = 4096;

/// See the [module](self).
pub(super) struct Mailbox {
    waiting: Mutex<VecDeque<Update>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

impl Mailbox {
    pub(super) fn new(wake: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { waiting: Mutex::default(), wake }
    }

    /// Adds an update and removes older ones that it supersedes.
    pub(super) fn put(&self, update: Update) {
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            match &update {
                Update::Examples(_) => waiting.retain(|old| !matches!(old, Update::Examples(_))),
                Update::Evaluating { .. } => waiting.retain(|old| !matches!(old, Update::Evaluating { .. })),
                Update::Batch(_) => {
                    let is_batch = |old: &Update| matches!(old, Update::Batch(_));
                    if waiting.iter().filter(|old| is_batch(old)).count() >= BATCHES {
                        let oldest = waiting.iter().position(is_batch);
                        oldest.and_then(|oldest| waiting.remove(oldest));
                    }
                }
                // Drop phases that ended before they were fetched, back to the last update that is meaningful on its
                // own.
                Update::Phase(_) => {
                    let passing = |old: &Update| {
                        matches!(
                            old,
                            Update::Phase(_) | Update::Batch(_) | Update::Examples(_) | Update::Evaluating { .. }
                        )
                    };
                    let kept = waiting.iter().rposition(|old| !passing(old)).map_or(0, |last| last + 1);
                    let recent = waiting.split_off(kept);
                    waiting.extend(recent.into_iter().filter(|old| !matches!(old, Update::Phase(_))));
                }
                _ => {}
            }
            waiting.push_back(update);
        }
        (self.wake)();
    }

    /// Takes everything, oldest first.
    pub(super) fn take(&self) -> Vec<Update> {
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
