//! Which files of a folder are a certificate and its key. Spec core §6.1.
//!
//! Certificates end in `.crt`, `.cert` or `.pem`, keys in `.key`; those of the same base name belong together, else those of
//! which one begins with the other, the longest first. A certificate that has its key in the same file needs no other.

use std::io;
use std::path::{Path, PathBuf};

/// What a folder holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Certificates with their keys, in the order of their names.
    pub pairs: Vec<(PathBuf, PathBuf)>,
    /// Certificates that no key is there for.
    pub alone: Vec<PathBuf>,
}

/// Looks into a folder, not below it.
///
/// # Errors
/// When it cannot be read.
pub fn look(folder: &Path) -> io::Result<Found> {
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        // Follows links, which is how secrets are mounted.
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    let ends = |path: &Path, endings: &[&str]| {
        path.extension().and_then(|end| end.to_str()).is_some_and(|end| endings.contains(&end))
    };
    let keys: Vec<&PathBuf> = files.iter().filter(|path| ends(path, &["key"])).collect();
    let mut found = Found::default();
    for certificate in files.iter().filter(|path| ends(path, &["crt", "cert", "pem"])) {
        match key_of(certificate, &keys) {
            Some(key) => found.pairs.push((certificate.clone(), key)),
            None => found.alone.push(certificate.clone()),
        }
    }
    Ok(found)
}

fn key_of(certificate: &Path, keys: &[&PathBuf]) -> Option<PathBuf> {
    let stem = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let name = stem(certificate);
    let equal = keys.iter().find(|key| stem(key) == name);
    if let Some(key) = equal {
        return Some((*key).clone());
    }
    let own = std::fs::read(certificate).unwrap_or_default();
    if memchr::memmem::find(&own, b"PRIVATE KEY-----").is_some() {
        return Some(certificate.to_owned());
    }
    let near = keys.iter().filter(|key| {
        let key = stem(key);
        !key.is_empty() && (name.starts_with(&key) || key.starts_with(&name))
    });
    near.max_by_key(|key| stem(key).len().min(name.len())).map(|key| (*key).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_find_their_keys() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.crt", "a.key", "a.b.pem", "a.b.key", "chain-x.cert", "chain.key", "lonely.crt", "notes.txt"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        std::fs::write(folder.path().join("whole.pem"), "-----BEGIN PRIVATE KEY-----").unwrap();
        std::fs::create_dir(folder.path().join("below.crt")).unwrap();
        let found = look(folder.path()).unwrap();
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        let pairs: Vec<_> = found.pairs.iter().map(|(cert, key)| (name(cert), name(key))).collect();
        let expected = [("a.b.pem", "a.b.key"), ("a.crt", "a.key"), ("chain-x.cert", "chain.key")];
        let expected = expected.into_iter().chain([("whole.pem", "whole.pem")]);
        assert_eq!(pairs, expected.map(|(cert, key)| (cert.to_owned(), key.to_owned())).collect::<Vec<_>>());
        assert_eq!(found.alone.iter().map(name).collect::<Vec<_>>(), ["lonely.crt"]);
    }
}
