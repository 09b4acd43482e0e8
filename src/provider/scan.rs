//! What watched paths look like on disk at one moment: a fingerprint of their files, and the folders whose events matter.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::watch::{Depth, Watched};

/// One look at all watched paths.
#[derive(Default)]
pub(super) struct Scan {
    /// Every file with what tells one version of it from another.
    files: BTreeMap<PathBuf, Option<Version>>,
    /// Folders in which a change could alter `files`, with their identity: a folder that was replaced is another one.
    pub folders: BTreeMap<PathBuf, Identity>,
    /// Real folders already visited, against loops of symbolic links.
    visited: HashSet<PathBuf>,
}

/// Device and inode.
pub(super) type Identity = (u64, u64);

/// The real file behind a path and its state. Change time is there for writers that keep the modification time.
#[derive(Hash, PartialEq)]
struct Version {
    real: PathBuf,
    identity: Identity,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Scan {
    /// Looks at all watched paths. What cannot be read counts as absent.
    pub fn of(watched: &[Watched]) -> Scan {
        let mut scan = Scan::default();
        for watch in watched {
            scan.visited.clear();
            scan.trail(&watch.path, MAX_LINKS);
            match fs::metadata(&watch.path) {
                Ok(found) if found.is_dir() => scan.folder(&watch.path, watch, MAX_DEPTH),
                Ok(found) => scan.file(watch.path.clone(), &found),
                Err(_) => {}
            }
        }
        scan
    }

    /// Equal as long as no file came, went or changed.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.files.hash(&mut hasher);
        hasher.finish()
    }

    /// Folders on the way to a path that decide what it is: where it lies, where each symbolic link on the way lies and what
    /// that leads to, or the nearest folder that exists.
    fn trail(&mut self, path: &Path, links_left: usize) {
        let nearest = path.ancestors().skip(1).find(|folder| folder.as_os_str().is_empty() || folder.is_dir());
        self.note_folder(nearest.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")));
        let Some(links_left) = links_left.checked_sub(1) else {
            return;
        };
        for step in path.ancestors() {
            let (Ok(target), Some(folder)) = (fs::read_link(step), step.parent()) else {
                continue;
            };
            self.note_folder(if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
            self.trail(&folder.join(target), links_left);
        }
    }

    fn note_folder(&mut self, folder: &Path) {
        if let Ok(found) = fs::metadata(folder) {
            self.folders.insert(folder.to_owned(), identity(&found));
        }
    }

    fn folder(&mut self, folder: &Path, watch: &Watched, depth_left: usize) {
        let is_new = fs::canonicalize(folder).is_ok_and(|real| self.visited.insert(real));
        if !is_new {
            return;
        }
        self.note_folder(folder);
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in entries {
            if self.files.len().max(self.folders.len()) >= MAX_ENTRIES {
                return;
            }
            let path = entry.path();
            let is_plain = entry.file_type().is_ok_and(|kind| kind.is_file());
            if !is_plain || watch.wants(&path) {
                self.entry(path, watch, depth_left);
            }
        }
    }

    fn entry(&mut self, path: PathBuf, watch: &Watched, depth_left: usize) {
        let is_link = path.is_symlink();
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => {
                if watch.depth == Depth::Tree && depth_left > 0 && !is_hidden(&path) {
                    self.folder(&path, watch, depth_left - 1);
                }
            }
            Ok(found) if watch.wants(&path) => {
                if is_link {
                    self.trail(&path, MAX_LINKS);
                }
                self.file(path, &found);
            }
            Ok(_) => {}
            // A link to nothing: it may get a target later, and losing one is a change.
            Err(_) if is_link && watch.wants(&path) => {
                self.trail(&path, MAX_LINKS);
                self.files.insert(path, None);
            }
            Err(_) => {}
        }
    }

    fn file(&mut self, path: PathBuf, found: &Metadata) {
        let version = fs::canonicalize(&path).ok().map(|real| Version {
            real,
            identity: identity(found),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        });
        self.files.insert(path, version);
    }
}

fn identity(found: &Metadata) -> Identity {
    (found.dev(), found.ino())
}

/// Such folders hold no configuration: version control, and the generations of a mounted Kubernetes volume, whose files are
/// seen through the links beside them.
fn is_hidden(folder: &Path) -> bool {
    let name = folder.components().next_back();
    matches!(name, Some(Component::Normal(name)) if name.as_encoded_bytes().starts_with(b"."))
}

/// Links that are followed from one path, as the kernel does.
const MAX_LINKS: usize = 8;
/// Folders within folders.
const MAX_DEPTH: usize = 32;
/// Files, and folders, that are looked at, so that a mistaken path such as `/` costs no more than this.
const MAX_ENTRIES: usize = 10_000;
