//! Files that are always whole: written beside their place, then moved there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::KubeletError;

/// Replaces a file in one step; a reader sees the old or the new content.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut beside: PathBuf = path.to_owned();
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    beside.set_file_name(format!(".{name}.{}.new", std::process::id()));
    fs::write(&beside, content)?;
    fs::rename(&beside, path)
}

/// Writes a value as JSON, in one step.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), KubeletError> {
    let content = serde_json::to_vec(value).map_err(|e| KubeletError::file("encode", path)(e.into()))?;
    write(path, &content).map_err(KubeletError::file("write", path))
}

/// Reads a value from JSON; `None` when the file is not there.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, KubeletError> {
    match fs::read(path) {
        Ok(content) => {
            serde_json::from_slice(&content).map(Some).map_err(|e| KubeletError::file("decode", path)(e.into()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(KubeletError::file("read", path)(error)),
    }
}

pub(crate) fn make_dir(path: &Path) -> Result<(), KubeletError> {
    fs::create_dir_all(path).map_err(KubeletError::file("make directory", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_value_is_read_back_and_nothing_lies_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        assert_eq!(read_json::<Vec<u8>>(&path).unwrap(), None);
        write_json(&path, &vec![1_u8, 2]).unwrap();
        write_json(&path, &vec![3_u8]).unwrap();
        assert_eq!(read_json::<Vec<u8>>(&path).unwrap(), Some(vec![3]));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
