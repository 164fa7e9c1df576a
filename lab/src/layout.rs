//! Where the files of a lab are.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::LabError;

/// Paths of one lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    base: PathBuf,
    name: String,
}

impl Layout {
    pub(crate) fn new(base: &Path, name: &str) -> Self {
        Self { base: base.to_owned(), name: name.to_owned() }
    }

    /// The directory of all labs.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The directory of this lab.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.base.join(&self.name)
    }

    /// The kubeconfig for whoever is on this machine.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir().join("kubeconfig")
    }

    /// The log of one of the lab's own processes.
    #[must_use]
    pub fn log(&self, of: &str) -> PathBuf {
        self.dir().join("logs").join(format!("{of}.log"))
    }

    /// What a node and this machine share.
    #[must_use]
    pub fn node_dir(&self, node: &str) -> PathBuf {
        self.dir().join("nodes").join(node)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir().join("state.json")
    }

    pub(crate) fn plan(&self, of: &str) -> PathBuf {
        self.dir().join("plans").join(format!("{of}.json"))
    }

    pub(crate) fn api_data(&self) -> PathBuf {
        self.dir().join("apiserver")
    }

    /// Beside the directory, not in it, since `down` removes that.
    pub(crate) fn lock(&self) -> PathBuf {
        self.base.join(format!(".{}.lock", self.name))
    }
}

pub(crate) fn make_dir(path: &Path) -> Result<(), LabError> {
    fs::create_dir_all(path).map_err(LabError::io(format!("make the directory {}", path.display())))
}

/// Writes beside its place first, so that a reader and a crash see the old file or the new one.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), LabError> {
    let beside = path.with_extension("new");
    let written =
        fs::File::create(&beside).and_then(|mut file| file.write_all(bytes)).and_then(|()| fs::rename(&beside, path));
    written.map_err(LabError::io(format!("write {}", path.display())))
}

pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), LabError> {
    let text = serde_json::to_vec_pretty(value).map_err(LabError::io(format!("write {}", path.display())))?;
    write_whole(path, &text)
}

/// `None` when there is no such file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, LabError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LabError::io(format!("read {}", path.display()))(error)),
    };
    serde_json::from_slice(&text).map(Some).map_err(LabError::io(format!("read {}", path.display())))
}
