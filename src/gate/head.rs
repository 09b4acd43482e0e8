//! The head of an HTTP/1 request, byte for byte.
//!
//! RFC 9112 §2 to §7 with every permitted repair turned into a refusal; see the module above for the reason. One
//! exception: a single empty line before the request line is skipped (§2.2), since old clients send one after a body.

use std::str;

use memchr::{memchr, memchr_iter};

use super::line::{
    check_target, content_length, is_blank, is_disguised_framing, is_token, is_token_byte, is_value_byte, list, trim,
};
use super::{Authority, Limits, Refusal, authority};

/// Facts of a head that passed. What a later parser reads must agree with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Bytes before the request line: 2 after an empty line, else 0.
    pub start: usize,
    /// How the body is framed.
    pub body: Body,
    /// The client wants to switch to WebSocket. HTTP/1.1 only, never with a body.
    pub upgrade: bool,
    /// The client lets the connection stay open after the reply.
    pub keep_alive: bool,
    /// The version is HTTP/1.0: no chunked reply, no interim response.
    pub http10: bool,
    /// The client waits for `100 Continue` before it sends the body. HTTP/1.1 only.
    pub expect_continue: bool,
    /// The request is `OPTIONS *`: about the gateway itself.
    pub asterisk: bool,
}

/// How the end of a request body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// No body, and no field that speaks of one; or an upgrade with `Content-Length: 0`.
    None,
    /// So many bytes, maybe zero.
    Length(u64),
    /// Chunked, to be followed with [`super::ChunkScanner`].
    Chunked,
}

/// Finds the end of a head: the length up to and including its blank line.
///
/// `from` is how much of `buf` an earlier call has seen, so that a slow head costs each byte once. Blank lines of bare
/// LF are found too: [`head()`] refuses them at once instead of the deadline.
pub fn end_of_head(buf: &[u8], from: usize) -> Option<usize> {
    // The blank line may straddle the border: three bytes of it can lie before.
    let start = from.saturating_sub(3).min(buf.len());
    memchr_iter(b'\n', &buf[start..]).find_map(|at| {
        let after = start + at + 1;
        match &buf[after..] {
            [b'\n', ..] => Some(after + 1),
            [b'\r', b'\n', ..] => Some(after + 2),
            _ => None,
        }
    })
}

/// The refusal of bytes that no request begins with, a handshake of TLS for instance: its end would be waited for in vain.
pub fn no_request(buf: &[u8]) -> Option<Refusal> {
    let begins = |byte: &u8| is_token_byte(*byte) || *byte == b'\r';
    buf.first().is_some_and(|byte| !begins(byte)).then(|| Refusal::bad_request("no request begins with this byte"))
}

/// The refusal of a head that outgrew its buffer before it ended: 414 while still in the request line, else 431.
pub fn too_large(buf: &[u8]) -> Refusal {
    match memchr(b'\n', &buf[empty_line(buf)..]) {
        Some(_) => Refusal::header_too_large("the head is too large"),
        None => Refusal::target_too_long(),
    }
}

/// Judges a complete head, blank line included.
///
/// # Errors
/// The first thing that is wrong with it, as [`Refusal`].
pub fn head(head: &[u8], limits: &Limits) -> Result<Head, Refusal> {
    let start = empty_line(head);
    let mut rest = &head[start..];
    let request = RequestLine::read(next_line(&mut rest)?, limits)?;
    if head.len() > limits.head_bytes {
        return Err(Refusal::header_too_large("the head is too large"));
    }
    let mut fields = Fields::default();
    let mut count = 0;
    loop {
        let line = next_line(&mut rest)?;
        if line.is_empty() {
            break;
        }
        count += 1;
        if count > limits.fields {
            return Err(Refusal::header_too_large("too many fields"));
        }
        fields.read(line)?;
    }
    if !rest.is_empty() {
        return Err(Refusal::bad_request("bytes after the blank line"));
    }
    let head = fields.judge(&request)?;
    Ok(Head { start, ..head })
}

/// A head that has passed, cut into its parts.
pub struct Parts<'a, I> {
    /// The method.
    pub method: &'a [u8],
    /// The request target.
    pub target: &'a [u8],
    /// Names and values of the fields, as they were sent but for blanks around a value.
    pub fields: I,
}

/// Cuts a head that has passed, without the empty line before it, into its parts.
pub fn parts(head: &[u8]) -> Parts<'_, impl Iterator<Item = (&[u8], &[u8])>> {
    let mut rest = head;
    let mut line = move || next_line(&mut rest).unwrap_or_default();
    let mut words = line().split(|byte| *byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let fields = std::iter::from_fn(move || {
        let line = line();
        let colon = memchr(b':', line)?;
        Some((&line[..colon], trim(&line[colon + 1..])))
    });
    Parts { method, target, fields }
}

/// Length of the empty line that may precede a request.
fn empty_line(buf: &[u8]) -> usize {
    if buf.starts_with(b"\r\n") { 2 } else { 0 }
}

/// Takes one line off `rest`, without its CRLF.
fn next_line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Refusal> {
    let end = memchr(b'\n', rest).ok_or(Refusal::bad_request("the head ends before its blank line"))?;
    let (line, after) = (&rest[..end], &rest[end + 1..]);
    *rest = after;
    line.strip_suffix(b"\r").ok_or(Refusal::bad_request("a line ends with a bare LF"))
}

struct RequestLine<'a> {
    http10: bool,
    asterisk: bool,
    /// Authority and default port of an absolute target.
    authority: Option<(Authority<'a>, u16)>,
}

impl<'a> RequestLine<'a> {
    /// `method SP target SP version`, with exactly one space each.
    fn read(line: &'a [u8], limits: &Limits) -> Result<Self, Refusal> {
        let malformed = Refusal::bad_request("malformed request line");
        let first = memchr(b' ', line).ok_or(malformed)?;
        let (method, rest) = (&line[..first], &line[first + 1..]);
        let second = memchr(b' ', rest).ok_or(malformed)?;
        let (target, version) = (&rest[..second], &rest[second + 1..]);
        if !is_token(method) {
            return Err(Refusal::bad_request("the method is not a token"));
        }
        let http10 = version_is_10(version)?;
        check_method(method)?;
        if target.len() > limits.target_bytes {
            return Err(Refusal::target_too_long());
        }
        check_target(target)?;
        Ok(Self { http10, asterisk: target == b"*", authority: target_authority(method, target)? })
    }
}

fn version_is_10(version: &[u8]) -> Result<bool, Refusal> {
    match version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Err(Refusal::version_not_supported())
        }
        _ => Err(Refusal::bad_request("malformed HTTP version")),
    }
}

/// Methods that no route may have, in any protocol.
///
/// # Errors
/// 405 for TRACE, which shows a client what proxies added, and for CONNECT, which is for forward proxies.
pub(super) fn check_method(method: &[u8]) -> Result<(), Refusal> {
    match method {
        b"TRACE" => Err(Refusal::method_not_allowed("TRACE is not served")),
        b"CONNECT" => Err(Refusal::method_not_allowed("CONNECT is not served")),
        _ => Ok(()),
    }
}

/// Sorts the four target forms of RFC 9112 §3.2, and reads the authority of the absolute one.
fn target_authority<'a>(method: &[u8], target: &'a [u8]) -> Result<Option<(Authority<'a>, u16)>, Refusal> {
    match target {
        [b'/', ..] => return Ok(None),
        b"*" if method == b"OPTIONS" => return Ok(None),
        b"*" => return Err(Refusal::bad_request("only OPTIONS may ask for *")),
        _ => {}
    }
    let (rest, default_port) = if let Some(rest) = after_scheme(target, b"http://") {
        (rest, 80)
    } else if let Some(rest) = after_scheme(target, b"https://") {
        (rest, 443)
    } else {
        return Err(Refusal::bad_request("the request target is neither a path nor an http URL"));
    };
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    Ok(Some((authority(text(&rest[..end])?)?, default_port)))
}

fn after_scheme<'a>(target: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = target.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

fn text(bytes: &[u8]) -> Result<&str, Refusal> {
    str::from_utf8(bytes).map_err(|_| Refusal::bad_request("the host is not ASCII"))
}

/// The fields that frame a message or steer its connection; all others only have to be well-formed.
#[derive(Default)]
struct Fields<'a> {
    host: Option<Authority<'a>>,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    connection_upgrade: bool,
    protocol: bool,
    expect: bool,
    expect_other: bool,
}

impl<'a> Fields<'a> {
    fn read(&mut self, line: &'a [u8]) -> Result<(), Refusal> {
        let (name, value) = split_field(line)?;
        // By length first: most fields are none of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(value),
            6 if name.eq_ignore_ascii_case(b"expect") => self.expect(value),
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade(value),
            10 if name.eq_ignore_ascii_case(b"connection") => self.connection(value),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.coding(value),
            14 | 17 if is_disguised_framing(name) => {
                Err(Refusal::bad_request("framing field spelled with an underscore"))
            }
            _ => Ok(()),
        }
    }

    fn host(&mut self, value: &'a [u8]) -> Result<(), Refusal> {
        match self.host.replace(authority(text(value)?)?) {
            None => Ok(()),
            Some(_) => Err(Refusal::bad_request("more than one Host")),
        }
    }

    /// Equal repeats are refused as well: the bytes go on as they are, and not every backend collapses them.
    fn length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        match self.length.replace(content_length(value)?) {
            None => Ok(()),
            Some(_) => Err(Refusal::bad_request("more than one Content-Length")),
        }
    }

    fn coding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.chunked {
            return Err(Refusal::bad_request("more than one Transfer-Encoding"));
        }
        check_coding(value)?;
        self.chunked = true;
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for option in list(value).filter(|option| !option.is_empty()) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.connection_upgrade = true;
            } else {
                check_nominated(option)?;
            }
        }
        Ok(())
    }

    /// Only WebSocket counts. A server may ignore any other offer (RFC 9110 §7.8), and common clients make them with every
    /// cleartext request, bodies included: Java's `h2c`, which is gone from HTTP/2 (RFC 9113 §3.1), Apache's `TLS/1.2`.
    fn upgrade(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for protocol in list(value).filter(|protocol| !protocol.is_empty()) {
            if !protocol.split(|byte| *byte == b'/').all(is_token) {
                return Err(Refusal::bad_request("malformed Upgrade"));
            }
            self.protocol |= protocol.eq_ignore_ascii_case(b"websocket");
        }
        Ok(())
    }

    fn expect(&mut self, value: &[u8]) -> Result<(), Refusal> {
        match value.eq_ignore_ascii_case(b"100-continue") {
            true => self.expect = true,
            false => self.expect_other = true,
        }
        Ok(())
    }

    /// What the fields mean together, and together with the request line.
    fn judge(&self, request: &RequestLine<'_>) -> Result<Head, Refusal> {
        let http10 = request.http10;
        self.judge_host(request)?;
        let body = self.judge_body(http10)?;
        let upgrade = self.protocol && self.connection_upgrade && !http10;
        let body = match body {
            Body::Length(0) if upgrade => Body::None,
            body => body,
        };
        if upgrade && body != Body::None {
            return Err(Refusal::bad_request("an upgrade with a body"));
        }
        if self.expect_other && !http10 {
            return Err(Refusal::expectation_failed());
        }
        Ok(Head {
            start: 0,
            body,
            upgrade,
            keep_alive: !self.close && (self.keep_alive || !http10),
            http10,
            expect_continue: self.expect && !http10,
            asterisk: request.asterisk,
        })
    }

    fn judge_host(&self, request: &RequestLine<'_>) -> Result<(), Refusal> {
        match (self.host, request.authority) {
            (None, _) if !request.http10 => Err(Refusal::bad_request("no Host")),
            (Some(host), Some((target, port))) if !host.same(&target, port) => {
                Err(Refusal::bad_request("Host differs from the request target"))
            }
            _ => Ok(()),
        }
    }

    fn judge_body(&self, http10: bool) -> Result<Body, Refusal> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Refusal::bad_request("both Content-Length and Transfer-Encoding")),
            (true, None) if http10 => Err(Refusal::bad_request("Transfer-Encoding on HTTP/1.0")),
            (true, None) => Ok(Body::Chunked),
            (false, Some(length)) => Ok(Body::Length(length)),
            (false, None) => Ok(Body::None),
        }
    }
}

/// `name ":" OWS value OWS`, with every byte checked.
fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let colon =
        line.iter().position(|byte| !is_token_byte(*byte)).ok_or(Refusal::bad_request("a field without a colon"))?;
    match line[colon] {
        b':' if colon > 0 => {}
        b':' => return Err(Refusal::bad_request("a field without a name")),
        byte if is_blank(byte) && colon == 0 => {
            return Err(Refusal::bad_request("a folded line"));
        }
        byte if is_blank(byte) => return Err(Refusal::bad_request("space in a field name")),
        _ => return Err(Refusal::bad_request("bad character in a field name")),
    }
    let value = &line[colon + 1..];
    // No early exit, so that the compiler can look at many bytes at once.
    let bad = value.iter().fold(false, |bad, byte| bad | !is_value_byte(*byte));
    match bad {
        true => Err(Refusal::bad_request("control character in a field")),
        false => Ok((&line[..colon], trim(value))),
    }
}

/// Exactly one `chunked` passes. Lists without sense are 400, codings that we do not speak 501 (RFC 9112 §6.1).
fn check_coding(value: &[u8]) -> Result<(), Refusal> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut ended = false;
    for coding in list(value) {
        if ended || !is_token(coding) {
            return Err(Refusal::bad_request("malformed Transfer-Encoding"));
        }
        ended = coding.eq_ignore_ascii_case(b"chunked");
    }
    Err(Refusal::not_implemented("a transfer coding other than chunked"))
}

/// A nominated field is removed on the way; one that frames the message or carries what the client proves itself with must
/// not be removable. Headers that say who the client is may be: they go before the gateway sets its own.
fn check_nominated(option: &[u8]) -> Result<(), Refusal> {
    const PROTECTED: [&[u8]; 9] = [
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"cookie",
        b"forwarded",
        b"host",
        b"transfer-encoding",
        b"via",
    ];
    if !is_token(option) {
        return Err(Refusal::bad_request("malformed Connection"));
    }
    match PROTECTED.iter().any(|name| option.eq_ignore_ascii_case(name)) {
        true => Err(Refusal::bad_request("Connection names a protected field")),
        false => Ok(()),
    }
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
