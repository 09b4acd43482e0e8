//! Floods of HTTP/2 frames that ask for work and bring none: resets, pings, settings, priorities, window updates, empty frames
//! (CVE-2019-9512 to -9518, CVE-2023-44487, CVE-2024-27316 and their kin).
//!
//! The h2 library bounds what such frames may hold in memory, but answers them for as long as they come. Here they cost
//! credit as the bytes pass, which requests, bytes of responses and time bring back. A client that has none left is told
//! to calm down and is let go. Frames are looked at by their heads alone.

use std::time::Instant;

use tokio::sync::Notify;

/// Follows the frames of one client.
pub struct Floods {
    /// What is left of the client's preface.
    preface: usize,
    head: [u8; HEAD],
    /// How much of `head` has come.
    known: usize,
    /// What is left of the payload of the frame at hand.
    payload: usize,
    credit: usize,
    counted: Instant,
    /// Bytes of responses that have not brought a credit yet.
    written: usize,
}

/// Too many frames for too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flood;

/// Tells the task of a connection that its client floods it.
pub type Alarm = Notify;

impl Floods {
    /// A connection whose preface has not been read.
    pub fn new(now: Instant) -> Floods {
        Floods { preface: PREFACE, head: [0; HEAD], known: 0, payload: 0, credit: CREDIT, counted: now, written: 0 }
    }

    /// Bytes of the client, in order.
    ///
    /// # Errors
    /// When it has no credit left.
    pub fn read(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Flood> {
        let mut outcome = Ok(());
        while !bytes.is_empty() {
            let skipped = (self.preface + self.payload).min(bytes.len());
            if skipped > 0 {
                let of_preface = self.preface.min(skipped);
                self.preface -= of_preface;
                self.payload -= skipped - of_preface;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (HEAD - self.known).min(bytes.len());
            self.head[self.known..self.known + taken].copy_from_slice(&bytes[..taken]);
            self.known += taken;
            bytes = &bytes[taken..];
            if self.known == HEAD {
                outcome = outcome.and(self.frame(&now));
            }
        }
        outcome
    }

    /// Bytes that were sent to the client, whatever they are.
    pub fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written >= BYTES {
            self.earn(self.written / BYTES);
            self.written %= BYTES;
        }
    }

    fn frame(&mut self, now: &impl Fn() -> Instant) -> Result<(), Flood> {
        let length = usize::from(self.head[0]) << 16 | usize::from(self.head[1]) << 8 | usize::from(self.head[2]);
        let (kind, flags) = (self.head[3], self.head[4]);
        (self.known, self.payload) = (0, length);
        match kind {
            DATA if length > 0 || flags & END_STREAM != 0 => Ok(()),
            HEADERS => {
                self.earn(1);
                Ok(())
            }
            // A request that is taken back has cost more than it brought.
            RST_STREAM => self.pay(2, now),
            _ => self.pay(1, now),
        }
    }

    fn earn(&mut self, credit: usize) {
        self.credit = (self.credit + credit).min(CREDIT);
    }

    fn pay(&mut self, credit: usize, now: &impl Fn() -> Instant) -> Result<(), Flood> {
        if self.credit < credit {
            // The clock is asked only by those who need it.
            let now = now();
            let since = now.saturating_duration_since(self.counted).as_millis();
            self.counted = now;
            self.earn(usize::try_from(since / MILLIS).unwrap_or(CREDIT));
        }
        self.credit = self.credit.checked_sub(credit).ok_or(Flood)?;
        Ok(())
    }
}

/// Length of the client's preface. RFC 9113 §3.4.
const PREFACE: usize = 24;
/// Length of a frame's head. RFC 9113 §4.1.
const HEAD: usize = 9;
/// The most that a client can have, which is what it begins with.
const CREDIT: usize = 2000;
/// Time that brings a credit, in milliseconds.
const MILLIS: u128 = 10;
/// Bytes sent to the client that bring a credit: it has to say that it took them.
const BYTES: usize = 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD + payload, 0);
        frame
    }

    /// How many of these a client can send at once.
    fn sent(parts: &[(u8, u8, usize)], most: usize) -> usize {
        let start = Instant::now();
        let mut floods = Floods::new(start);
        floods.read(&[b'x'; PREFACE], || start).unwrap();
        let bytes: Vec<u8> = parts.iter().flat_map(|(kind, flags, payload)| frame(*kind, *flags, *payload)).collect();
        (0..most).take_while(|_| floods.read(&bytes, || start).is_ok()).count()
    }

    #[test]
    fn frames_that_bring_nothing_cost_credit() {
        for (about, parts, most) in [
            ("pings", &[(6, 0, 8)][..], CREDIT),
            ("settings", &[(4, 0, 6)], CREDIT),
            ("priorities", &[(2, 0, 5)], CREDIT),
            ("window updates", &[(8, 0, 4)], CREDIT),
            ("continuations", &[(9, 0, 1)], CREDIT),
            ("empty data", &[(DATA, 0, 0)], CREDIT),
            ("of no known kind", &[(77, 0, 3)], CREDIT),
            ("requests that are taken back", &[(HEADERS, 5, 20), (RST_STREAM, 0, 4)], CREDIT - 1),
        ] {
            assert_eq!(sent(parts, CREDIT * 3), most, "{about}");
        }
        for (about, parts) in [
            ("data", &[(DATA, 0, 1)][..]),
            ("requests", &[(HEADERS, 5, 20)]),
            ("a call with an end of its own", &[(HEADERS, 4, 20), (DATA, END_STREAM, 0)]),
            ("every second one taken back", &[(HEADERS, 5, 20), (HEADERS, 5, 20), (RST_STREAM, 0, 4)]),
        ] {
            assert_eq!(sent(parts, CREDIT * 3), CREDIT * 3, "{about}");
        }
    }

    #[test]
    fn time_and_responses_bring_credit_back() {
        let start = Instant::now();
        let mut floods = Floods::new(start);
        floods.read(&[b'x'; PREFACE], || start).unwrap();
        let ping = frame(6, 0, 8);
        for _ in 0..CREDIT {
            floods.read(&ping, || start).unwrap();
        }
        floods.wrote(BYTES - 1);
        assert_eq!(floods.read(&ping, || start), Err(Flood));
        floods.wrote(BYTES + 1);
        floods.read(&ping, || start).unwrap();
        floods.read(&ping, || start).unwrap();
        assert_eq!(floods.read(&ping, || start), Err(Flood));
        let later = start + Duration::from_millis(25);
        assert_eq!([0; 3].map(|_| floods.read(&ping, || later).is_ok()), [true, true, false]);
    }

    #[test]
    fn pieces_of_any_size_are_the_same() {
        let start = Instant::now();
        let mut floods = Floods::new(start);
        let mut bytes = vec![b'x'; PREFACE];
        for _ in 0..CREDIT {
            bytes.extend(frame(6, 0, 8));
        }
        bytes.extend(frame(6, 0, 0));
        let outcome: Vec<_> = bytes.chunks(7).map(|piece| floods.read(piece, || start)).collect();
        assert_eq!(outcome.iter().filter(|outcome| outcome.is_err()).count(), 1);
        assert!(outcome.last().is_some_and(Result::is_err));
    }
}
