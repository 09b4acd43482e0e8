//! The forms of addresses: URLs of backends, `host:port` of entry points (goma-core §2.1, §2.3).

use std::net::{IpAddr, Ipv6Addr};

/// Schemes a backend may have; the last one is ours.
pub const SCHEMES: [&str; 3] = ["http", "https", "h2c"];

/// Checks the URL of a backend by Goma's rules: scheme, host, no slash at the end. User, path and query may be there.
///
/// # Errors
/// A sentence for the operator, with the remedy behind a semicolon.
pub fn check_url(url: &str) -> Result<(), String> {
    if url.is_empty() {
        return Err("is empty; write a URL like http://backend:8080".to_owned());
    }
    if url.ends_with('/') {
        return Err("ends with \"/\"; remove the trailing slash".to_owned());
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        // What stands before an @ may be a password.
        let shown = if url.contains('@') { "…" } else { url.trim_start_matches('/') };
        return Err(format!("has no scheme; write http://{shown} or https://{shown}"));
    };
    if !SCHEMES.iter().any(|known| known.eq_ignore_ascii_case(scheme)) {
        return Err(format!("has the scheme \"{scheme}\"; write one of {}", SCHEMES.join(", ")));
    }
    if url.chars().any(|at| at.is_control() || at == ' ') {
        return Err("holds a space or a control character; remove it".to_owned());
    }
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if !is_encoded(tail.split(['?', '#']).next().unwrap_or_default()) {
        return Err("holds a % that begins no encoding; write %25 for it".to_owned());
    }
    let host_port = authority.rsplit_once('@').map_or(authority, |(_, host_port)| host_port);
    let (host, port) = split(host_port).ok_or("is not a URL; write it like http://backend:8080")?;
    check_port(port, true)?;
    check_host(host)
}

/// Whether two hexadecimal digits follow each `%` of a path.
fn is_encoded(path: &str) -> bool {
    let mut parts = path.split('%').skip(1);
    parts.all(|part| part.len() >= 2 && part.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()))
}

/// `host:port`, the brackets of an IPv6 address taken off; the port is empty where there is none.
fn split(host_port: &str) -> Option<(&str, &str)> {
    if let Some(rest) = host_port.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        return match port {
            "" => Some((host, "")),
            _ => Some((host, port.strip_prefix(':')?)),
        };
    }
    let (host, port) = host_port.split_once(':').unwrap_or((host_port, ""));
    (!port.contains(':')).then_some((host, port))
}

fn check_port(port: &str, may_be_absent: bool) -> Result<(), String> {
    if port.is_empty() && may_be_absent {
        return Ok(());
    }
    match port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse::<u16>()) {
        Some(Ok(1..)) => Ok(()),
        _ => Err(format!("\"{port}\" is not a port; write a number from 1 to 65535")),
    }
}

fn check_host(host: &str) -> Result<(), String> {
    if host.is_empty() {
        return Err("has no host; write a URL like http://backend:8080".to_owned());
    }
    if host.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if let Some(odd) = host.chars().find(|at| !at.is_ascii() || !fits(*at as u8)) {
        return Err(format!("holds {odd:?} in the host name; write a plain host name"));
    }
    let long = host.len() > 253 || host.split('.').any(|label| label.len() > 63);
    let odd = |label: &str| label.is_empty() || label.starts_with('-') || label.ends_with('-');
    if long || host.split('.').any(odd) {
        return Err(format!("\"{host}\" is not a host name; check its dots, dashes and length"));
    }
    Ok(())
}

/// Reads `host:port` of an entry point; without a host it stands for all addresses. The result parses as a socket address.
///
/// # Errors
/// A sentence for the operator, with the remedy behind a semicolon.
pub fn listen_address(text: &str) -> Result<String, String> {
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("\"{text}\" has no port; write host:port"));
    };
    check_port(port, false)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let address = match (host, bare) {
        ("", _) => Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        (_, Some(v6)) => v6.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        (v4, None) => v4.parse::<std::net::Ipv4Addr>().ok().map(IpAddr::V4),
    };
    match address {
        Some(IpAddr::V4(v4)) => Ok(format!("{v4}:{port}")),
        Some(IpAddr::V6(v6)) => Ok(format!("[{v6}]:{port}")),
        None => Err(format!("\"{host}\" is not an IP address; write host:port with an IP address or no host")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backend_urls_follow_gomas_rules() {
        let long = format!("http://{}", "a".repeat(64));
        let table = [
            ("http://backend:8080", None),
            ("https://api.example.com", None),
            ("h2c://grpc:50051", None),
            ("HTTP://BACKEND", None),
            ("http://my_service:8080", None),
            ("http://10.0.0.1:80", None),
            ("http://[::1]:8080", None),
            ("http://[::1]", None),
            ("http://user:secret@backend:80/base?x=1", None),
            ("http://backend:", None),
            ("http://backend/a%2Fb?q=100%", None),
            ("http://backend/%zz", Some("holds a % that begins no encoding; write %25 for it")),
            ("http://backend/100%", Some("holds a % that begins no encoding; write %25 for it")),
            ("", Some("is empty; write a URL like http://backend:8080")),
            ("http://backend/", Some("ends with \"/\"; remove the trailing slash")),
            ("backend:8080", Some("has no scheme; write http://backend:8080 or https://backend:8080")),
            ("ann:secret@backend:80", Some("has no scheme; write http://… or https://…")),
            ("ftp://backend", Some("has the scheme \"ftp\"; write one of http, https, h2c")),
            ("http://?x", Some("has no host; write a URL like http://backend:8080")),
            ("http://:8080", Some("has no host; write a URL like http://backend:8080")),
            ("http://backend:http", Some("\"http\" is not a port; write a number from 1 to 65535")),
            ("http://backend:0", Some("\"0\" is not a port; write a number from 1 to 65535")),
            ("http://a..b", Some("\"a..b\" is not a host name; check its dots, dashes and length")),
            ("http://-a.b", Some("\"-a.b\" is not a host name; check its dots, dashes and length")),
            ("http://{HOST}:80", Some("holds '{' in the host name; write a plain host name")),
            ("http://${HOST}:80", Some("holds '$' in the host name; write a plain host name")),
            ("http://a b", Some("holds a space or a control character; remove it")),
            ("http://[::1", Some("is not a URL; write it like http://backend:8080")),
            ("http://a:1:2", Some("is not a URL; write it like http://backend:8080")),
        ];
        for (url, error) in table {
            assert_eq!(check_url(url).err().as_deref(), error, "{url:?}");
        }
        assert!(check_url(&long).is_err(), "a label of 64 letters");
    }

    #[test]
    fn entry_points_listen_on_literal_addresses() {
        let table = [
            (":8080", Some("[::]:8080")),
            ("[::]:8080", Some("[::]:8080")),
            ("0.0.0.0:80", Some("0.0.0.0:80")),
            ("127.0.0.1:65535", Some("127.0.0.1:65535")),
            ("[::1]:443", Some("[::1]:443")),
            ("localhost:80", None),
            ("8080", None),
            (":0", None),
            (":65536", None),
            (":http", None),
            ("::1:80", None),
            ("", None),
        ];
        for (text, address) in table {
            let read = listen_address(text).ok();
            assert_eq!(read.as_deref(), address, "{text:?}");
            assert!(read.is_none_or(|read| read.parse::<std::net::SocketAddr>().is_ok()), "{text:?}");
        }
    }
}
