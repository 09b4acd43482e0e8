//! The bounded queue between those who log and the one thread that writes.
//!
//! Nobody ever waits for room: a record that finds none is dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::format::Form;

/// What the writer is handed.
pub(super) enum Message {
    /// A finished line, with its line feed, and the form it was given: the settings may be others when it is written.
    Line(Form, String),
    /// A record that is yet to be put into a form.
    Record(Box<dyn Record>),
    /// Everything before this is to be written now.
    Flush(SyncSender<()>),
}

/// Something that becomes a line on the writer's thread.
pub(super) trait Record: Send {
    /// Adds the line to the end of `out`.
    fn write(&self, out: &mut String, form: Form);
    /// Bytes that it holds, about.
    fn size(&self) -> usize;
}

impl Message {
    pub fn size(&self) -> usize {
        match self {
            Message::Line(_, line) => line.len(),
            Message::Record(record) => record.size(),
            Message::Flush(_) => 0,
        }
    }
}

/// The sending side.
pub(super) struct Queue {
    sender: SyncSender<Message>,
    counts: Arc<Counts>,
}

/// What both sides keep count of.
#[derive(Default)]
pub(super) struct Counts {
    /// Bytes in the queue.
    pub waiting: AtomicUsize,
    /// Records dropped since the start.
    pub dropped: AtomicU64,
}

impl Queue {
    pub fn new() -> (Arc<Queue>, Receiver<Message>, Arc<Counts>) {
        let (sender, receiver) = sync_channel(MAX_RECORDS);
        let counts = Arc::new(Counts::default());
        (Arc::new(Queue { sender, counts: counts.clone() }), receiver, counts)
    }

    /// Hands a record to the writer, or drops it if there is no room.
    pub fn push(&self, message: Message) {
        let size = message.size();
        let waiting = self.counts.waiting.fetch_add(size, Relaxed);
        if waiting > MAX_BYTES || self.sender.try_send(message).is_err() {
            self.counts.waiting.fetch_sub(size, Relaxed);
            self.counts.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Waits until all that was pushed before is written, at most `patience`. Blocks: for the end of the process and tests.
    pub fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let (done, written) = sync_channel(1);
        let mut message = Message::Flush(done);
        loop {
            match self.sender.try_send(message) {
                Ok(()) => return written.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok(),
                Err(TrySendError::Full(back)) if Instant::now() < deadline => message = back,
                Err(_) => return false,
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Records dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Relaxed)
    }
}

/// Records that may wait.
const MAX_RECORDS: usize = 8192;
/// Bytes that may wait; one record may go beyond.
const MAX_BYTES: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_counts_instead_of_waiting() {
        let (queue, receiver, counts) = Queue::new();
        for _ in 0..MAX_RECORDS + 3 {
            queue.push(Message::Line(Form::Text, "x\n".into()));
        }
        assert_eq!((queue.dropped(), receiver.try_iter().count()), (3, MAX_RECORDS));
        assert_eq!(counts.waiting.load(Relaxed), 2 * MAX_RECORDS, "the writer takes off what it has taken");
    }

    #[test]
    fn few_large_records_fill_the_queue_as_well() {
        let (queue, receiver, _) = Queue::new();
        for _ in 0..30 {
            queue.push(Message::Line(Form::Text, "x".repeat(1024 * 1024)));
        }
        assert_eq!((queue.dropped(), receiver.try_iter().count()), (13, 17));
    }

    #[test]
    fn a_flush_does_not_wait_for_a_writer_that_is_stuck() {
        let (queue, _receiver, _) = Queue::new();
        assert!(!queue.flush(Duration::from_millis(5)));
    }
}
