//! A directory whose files change all at once.
//!
//! Source: `pkg/volume/util/atomic_writer.go` of Kubernetes: a directory named by the time, `..data` that points to it,
//! and links to `..data/NAME`; the swap of `..data` is the change.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use k8s_openapi::jiff::Timestamp;

/// Paths below the volume, with content and mode.
pub(super) type Tree = BTreeMap<String, (Vec<u8>, u32)>;

/// Makes the volume hold exactly these files.
pub(super) fn replace(volume: &Path, tree: &Tree) -> io::Result<()> {
    for path in tree.keys() {
        let is_bad =
            path.is_empty() || path.starts_with('/') || path.split('/').any(|part| part == ".." || part.is_empty());
        if is_bad || path.starts_with("..") {
            return Err(io::Error::other(format!("invalid path {path:?} in the volume")));
        }
    }
    let data = volume.join("..data");
    let current = fs::read_link(&data).ok();
    if current.as_ref().is_some_and(|dir| holds(&volume.join(dir), tree)) {
        return Ok(());
    }
    let stamp = Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S.%9f").to_string();
    let fresh = volume.join(&stamp);
    for (path, (content, mode)) in tree {
        let file = fresh.join(path);
        fs::create_dir_all(file.parent().unwrap_or(&fresh))?;
        fs::write(&file, content)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(*mode))?;
    }
    fs::create_dir_all(&fresh)?;
    let next = volume.join("..data_tmp");
    // A kubelet killed here left it.
    let _ = fs::remove_file(&next);
    symlink(&stamp, &next)?;
    fs::rename(&next, &data)?;
    let wanted: BTreeSet<&str> = tree.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &wanted {
        let link = volume.join(name);
        if link.symlink_metadata().is_err() {
            symlink(Path::new("..data").join(name), &link)?;
        }
    }
    for entry in fs::read_dir(volume)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "..data" || name == stamp || wanted.contains(name.as_str()) {
            continue;
        }
        if name.starts_with("..") {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn holds(dir: &Path, tree: &Tree) -> bool {
    fn count(dir: &Path) -> usize {
        fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| if e.path().is_dir() { count(&e.path()) } else { 1 })
            .sum()
    }
    dir.is_dir()
        && count(dir) == tree.len()
        && tree.iter().all(|(path, (content, _))| fs::read(dir.join(path)).is_ok_and(|is| is == *content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_change_together_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let tree = |files: &[(&str, &str)]| -> Tree {
            files.iter().map(|(path, text)| ((*path).to_owned(), (text.as_bytes().to_vec(), 0o644))).collect()
        };
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).ok();
        replace(dir.path(), &tree(&[("a", "1"), ("d/b", "2")])).unwrap();
        assert_eq!((read("a"), read("d/b")), (Some("1".into()), Some("2".into())));
        let before = fs::read_link(dir.path().join("..data")).unwrap();
        replace(dir.path(), &tree(&[("a", "1"), ("d/b", "2")])).unwrap();
        assert_eq!(fs::read_link(dir.path().join("..data")).unwrap(), before, "nothing changed, nothing is swapped");
        replace(dir.path(), &tree(&[("a", "3")])).unwrap();
        assert_eq!((read("a"), read("d/b")), (Some("3".into()), None));
        assert!(!dir.path().join(before).exists());
        replace(dir.path(), &Tree::new()).unwrap();
        assert_eq!(read("a"), None);
        for bad in ["../x", "/x", "", "a//b", "..data"] {
            assert!(replace(dir.path(), &tree(&[(bad, "")])).is_err(), "{bad}");
        }
    }
}
