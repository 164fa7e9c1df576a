//! One backend's own table, as it was written.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::registry::BuildError;

/// The section `backendConfig.<name>`, not yet checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Section {
    backend: String,
    values: Map<String, Value>,
}

impl Section {
    /// A section of the backend with this registry name.
    #[must_use]
    pub fn new(backend: impl Into<String>, values: Map<String, Value>) -> Self {
        Self { backend: backend.into(), values }
    }

    /// The section as the backend's own config type.
    ///
    /// # Errors
    /// `Config`, with the full key, for a value that does not fit and for a key that the type does not know.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, BuildError> {
        serde_json::from_value(Value::Object(self.values.clone())).map_err(|error| BuildError::Config {
            backend: self.backend.clone(),
            key: String::new(),
            reason: error.to_string(),
        })
    }
}
