//! The sample configuration: what `config init` writes, and what a start without any file begins with.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// The sample itself, commented. It loads here and in Goma.
pub const SAMPLE: &str = include_str!("../../conf/goma.yml");

/// What to do with a file that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// An error; the file stays.
    Keep,
    /// It is written over.
    Replace,
}

/// Writes the sample; the folder must be there.
///
/// # Errors
/// When the file cannot be written, or is there and to be kept.
pub fn write(path: &Path, existing: Existing) -> io::Result<()> {
    match existing {
        Existing::Replace => fs::write(path, SAMPLE),
        Existing::Keep => OpenOptions::new().write(true).create_new(true).open(path)?.write_all(SAMPLE.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Env, Source, load};
    use super::*;

    #[test]
    fn the_sample_loads_without_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("goma.yml");
        write(&path, Existing::Keep).unwrap();
        let loaded = load(&Source { path: Some(path.clone()), env: Env::default() }).unwrap();
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        assert!(!loaded.config.routes.is_empty());
        assert!(write(&path, Existing::Keep).is_err(), "an existing file is kept");
        write(&path, Existing::Replace).unwrap();
    }
}
