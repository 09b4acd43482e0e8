//! Keys and certificates as a configuration gives them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// PEM text, base64 of it, or the path of a file. Spec core §6.1.
///
/// # Errors
/// When the file cannot be read.
pub fn material(text: &str) -> std::io::Result<Vec<u8>> {
    const BEGIN: &[u8] = b"-----BEGIN";
    let holds = |bytes: &[u8]| memchr::memmem::find(bytes, BEGIN).is_some();
    if holds(text.as_bytes()) {
        return Ok(text.as_bytes().to_vec());
    }
    match STANDARD.decode(text.trim()) {
        Ok(bytes) if holds(&bytes) => Ok(bytes),
        _ => std::fs::read(text),
    }
}
