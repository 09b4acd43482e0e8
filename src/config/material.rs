//! Keys and certificates as a configuration gives them.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The path that [`material`] would read, where it is no PEM text by itself.
pub fn file(text: &str) -> Option<&Path> {
    (!text.is_empty() && inline(text).is_none()).then(|| Path::new(text))
}

/// PEM text, base64 of it, or the path of a file. Spec core §6.1.
///
/// # Errors
/// When the file cannot be read.
pub fn material(text: &str) -> std::io::Result<Vec<u8>> {
    inline(text).map_or_else(|| std::fs::read(text), Ok)
}

fn inline(text: &str) -> Option<Vec<u8>> {
    const BEGIN: &[u8] = b"-----BEGIN";
    let holds = |bytes: &[u8]| memchr::memmem::find(bytes, BEGIN).is_some();
    if holds(text.as_bytes()) {
        return Some(text.as_bytes().to_vec());
    }
    STANDARD.decode(text.trim()).ok().filter(|bytes| holds(bytes))
}
