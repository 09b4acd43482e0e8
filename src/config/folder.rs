//! The files of a folder that hold configuration (goma-core §8.2, §8.3).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Folders deeper than this are not followed.
const MAX_FOLDERS: usize = 32;

/// Files of these kinds in a folder and below, in lexical order; folders that begin with a dot are left out, as in Goma.
pub fn files(directory: &Path, kinds: &[&str], depth: usize, into: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if entry.file_type()?.is_dir() {
            if !hidden && depth < MAX_FOLDERS {
                files(&path, kinds, depth + 1, into)?;
            }
        } else if path.extension().is_some_and(|kind| kinds.iter().any(|known| kind == *known)) && !path.is_dir() {
            into.push(path);
        }
    }
    Ok(())
}
