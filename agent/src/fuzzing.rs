//! What the fuzz targets in `agent/fuzz/` reach of the agent's insides, as JSON and text. It is nobody else's API.

use std::path::Path;

use kinesin_core::causes::with_causes;
use serde::{Deserialize as _, Serialize};
use serde_json::Value;

use crate::{
    endpoint::{Record, selector::Selector},
    store::{NodeRecord, Store},
};

/// A state directory, as an agent finds it at its start.
#[derive(Debug)]
pub struct State(Store);

impl State {
    /// Makes what is missing of it.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(directory: &Path) -> Result<Self, String> {
        let store = Store::new(directory.to_owned());
        store.prepare().map(|()| Self(store)).map_err(|error| with_causes(&error))
    }

    /// The endpoints that are restored.
    ///
    /// # Errors
    /// The file system's.
    pub fn endpoints(&self) -> Result<Vec<Value>, String> {
        let records = self.0.load_endpoints().map_err(|error| with_causes(&error))?;
        records.iter().map(json).collect()
    }

    /// What the node was given.
    ///
    /// # Errors
    /// The file system's.
    pub fn node(&self) -> Result<Option<Value>, String> {
        let record = self.0.load_node().map_err(|error| with_causes(&error))?;
        record.as_ref().map(json).transpose()
    }

    /// The configuration that was accepted last.
    ///
    /// # Errors
    /// The file system's.
    pub fn config(&self) -> Result<Option<Vec<(String, String)>>, String> {
        self.0.load_config().map_err(|error| with_causes(&error))
    }

    /// Writes an endpoint as the agent does.
    ///
    /// # Errors
    /// When it is none, and the file system's.
    pub fn save_endpoint(&self, record: Value) -> Result<(), String> {
        let record: Record = serde_json::from_value(record).map_err(|error| error.to_string())?;
        self.0.save_endpoint(&record).map_err(|error| with_causes(&error))
    }

    /// Writes what the node was given as the agent does.
    ///
    /// # Errors
    /// When it is none, and the file system's.
    pub fn save_node(&self, record: Value) -> Result<(), String> {
        let record: NodeRecord = serde_json::from_value(record).map_err(|error| error.to_string())?;
        self.0.save_node(&record).map_err(|error| with_causes(&error))
    }

    /// Writes a configuration as the agent does.
    ///
    /// # Errors
    /// The file system's.
    pub fn save_config(&self, keys: &[(String, String)]) -> Result<(), String> {
        self.0.save_config(keys).map_err(|error| with_causes(&error))
    }
}

fn json(value: &impl Serialize) -> Result<Value, String> {
    serde_json::to_value(value).map_err(|error| error.to_string())
}

/// An endpoint's name in a path, as the agent writes it.
///
/// # Errors
/// When it names none.
pub fn selector(text: &str) -> Result<String, String> {
    text.parse::<Selector>().map(|selector| selector.to_string()).map_err(|error| error.to_string())
}

/// Whether a name that is one names this endpoint.
///
/// # Errors
/// When the text is no name, or the record no endpoint.
pub fn names(text: &str, record: &Value) -> Result<bool, String> {
    let selector: Selector =
        text.parse().map_err(|error: crate::endpoint::selector::SelectorError| error.to_string())?;
    let record = Record::deserialize(record).map_err(|error| error.to_string())?;
    Ok(selector.matches(&record))
}
