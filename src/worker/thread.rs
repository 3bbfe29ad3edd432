//! The loop of the worker's thread.

use std::sync::mpsc::Receiver;

use super::mailbox::Mailbox;
use super::{Phase, Request, Update};

/// Serves requests until the channel closes.
pub(super) fn serve(requests: &Receiver<Request>, mailbox: &Mailbox) {
    mailbox.put(Update::Phase(Phase::Idle));
    while requests.recv().is_ok() {}
}
