//! Request targets in their plain form, before Pingora reads them.
//!
//! The gate has seen that an absolute target names the same authority as `Host`; from here on `Host` alone says it. A few
//! characters that RFC 3986 has no place for, but browsers and scripts send, are percent-encoded; Pingora would refuse them.

/// The head with a plain target; `None` when it is plain already.
///
/// `head` has passed the gate, so it starts with a method, one space, a target and one space.
pub fn plain(head: &[u8]) -> Option<Vec<u8>> {
    let start = memchr::memchr(b' ', head)? + 1;
    let end = start + memchr::memchr(b' ', &head[start..])?;
    let target = &head[start..end];
    let absolute = !matches!(target.first(), Some(b'/' | b'*'));
    if !absolute && !target.iter().any(|byte| ODD.contains(byte)) {
        return None;
    }
    let (authority, path) = if absolute { split(target)? } else { (None, target) };
    let mut plain = Vec::with_capacity(head.len() + 64);
    plain.extend_from_slice(&head[..start]);
    if !path.starts_with(b"/") {
        plain.push(b'/');
    }
    for byte in path {
        match byte {
            odd if ODD.contains(odd) => plain.extend_from_slice(format!("%{odd:02X}").as_bytes()),
            byte => plain.push(*byte),
        }
    }
    let line_end = end + memchr::memmem::find(&head[end..], b"\r\n")? + 2;
    plain.extend_from_slice(&head[end..line_end]);
    // Only HTTP/1.0 may have no Host of its own.
    if let Some(authority) = authority.filter(|_| !has_host(&head[line_end..])) {
        plain.extend_from_slice(b"Host: ");
        plain.extend_from_slice(authority);
        plain.extend_from_slice(b"\r\n");
    }
    plain.extend_from_slice(&head[line_end..]);
    Some(plain)
}

const ODD: &[u8] = b"<>\"`";

/// Authority and path of an absolute target.
fn split(target: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let rest = &target[memchr::memmem::find(target, b"://")? + 3..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    Some((Some(&rest[..end]), &rest[end..]))
}

fn has_host(fields: &[u8]) -> bool {
    fields.split(|byte| *byte == b'\n').any(|line| line.len() >= 5 && line[..5].eq_ignore_ascii_case(b"host:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_get_one_form() {
        for (head, becomes) in [
            ("GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n", None),
            ("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", None),
            ("GET /a<b>`?q=\" HTTP/1.1\r\nHost: h\r\n\r\n", Some("GET /a%3Cb%3E%60?q=%22 HTTP/1.1\r\nHost: h\r\n\r\n")),
            ("GET HTTP://h/x?y HTTP/1.1\r\nHost: h\r\n\r\n", Some("GET /x?y HTTP/1.1\r\nHost: h\r\n\r\n")),
            ("GET http://h?y HTTP/1.1\r\nhost: h\r\n\r\n", Some("GET /?y HTTP/1.1\r\nhost: h\r\n\r\n")),
            ("GET http://h HTTP/1.0\r\nA: b\r\n\r\n", Some("GET / HTTP/1.0\r\nHost: h\r\nA: b\r\n\r\n")),
        ] {
            let plain = plain(head.as_bytes());
            assert_eq!(plain.as_deref().map(|bytes| std::str::from_utf8(bytes).expect("ASCII")), becomes, "{head}");
        }
    }
}
