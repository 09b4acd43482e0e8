//! A response on its way from the backend into the store; others may read along while it comes.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::prepared::Prepared;

/// A body that grows.
pub struct Fill {
    /// What it will be an entry of.
    pub prepared: Arc<Prepared>,
    state: Mutex<State>,
    grown: Notify,
    forgotten: AtomicBool,
}

#[derive(Default)]
struct State {
    pieces: Vec<Bytes>,
    length: usize,
    end: Option<End>,
}

/// How a fill ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The body is whole.
    Whole,
    /// It broke off: what was read of it is worth nothing.
    Broken,
}

/// A place in the body.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    piece: usize,
    /// Where that piece begins.
    start: usize,
    /// The next byte.
    pub at: usize,
}

impl Cursor {
    /// A place behind so many bytes.
    pub fn to(at: usize) -> Cursor {
        Cursor { at, ..Cursor::default() }
    }
}

impl Fill {
    /// An empty body.
    pub fn new(prepared: Arc<Prepared>) -> Fill {
        Fill { prepared, state: Mutex::default(), grown: Notify::new(), forgotten: false.into() }
    }

    /// Adds a piece; it is copied, so that no read buffer stays for its sake. Returns the length so far.
    pub fn add(&self, piece: &[u8]) -> usize {
        let mut state = self.lock();
        if !piece.is_empty() {
            state.pieces.push(Bytes::copy_from_slice(piece));
            state.length += piece.len();
        }
        let length = state.length;
        drop(state);
        self.grown.notify_waiters();
        length
    }

    /// Ends it; the first end counts. Returns the pieces.
    pub fn end(&self, end: End) -> Vec<Bytes> {
        let mut state = self.lock();
        state.end.get_or_insert(end);
        let pieces = state.pieces.clone();
        drop(state);
        self.grown.notify_waiters();
        pieces
    }

    /// It is not to be stored: a purge came in between.
    pub fn forget(&self) {
        self.forgotten.store(true, Relaxed);
    }

    /// Whether it is not to be stored.
    pub fn is_forgotten(&self) -> bool {
        self.forgotten.load(Relaxed)
    }

    /// The next piece up to a place, as soon as it is there; `None` at the end.
    ///
    /// # Errors
    /// When the body broke off.
    pub async fn read(&self, cursor: &mut Cursor, to: usize) -> Result<Option<Bytes>, Broken> {
        loop {
            let grown = self.grown.notified();
            tokio::pin!(grown);
            // From here on no growth is missed.
            grown.as_mut().enable();
            if let Some(found) = self.look(cursor, to)? {
                return Ok(found);
            }
            grown.await;
        }
    }

    /// `None`: not yet known.
    fn look(&self, cursor: &mut Cursor, to: usize) -> Result<Option<Option<Bytes>>, Broken> {
        let state = self.lock();
        if cursor.at >= to {
            return Ok(Some(None));
        }
        while let Some(piece) = state.pieces.get(cursor.piece) {
            let end = cursor.start + piece.len();
            if cursor.at < end {
                let from = cursor.at - cursor.start;
                let part = piece.slice(from..piece.len().min(to - cursor.start));
                cursor.at += part.len();
                return Ok(Some(Some(part)));
            }
            cursor.piece += 1;
            cursor.start = end;
        }
        match state.end {
            Some(End::Whole) => Ok(Some(None)),
            Some(End::Broken) => Err(Broken),
            None => Ok(None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body broke off on its way.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the response that this one was to be read along with broke off")]
pub struct Broken;
