//! The versions of the CNI spec that the plugin speaks, and what each of them has.

use std::fmt;

use crate::{CniError, request::Command};

/// A version of the CNI spec, in order of age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpecVersion {
    /// 0.1.0: one address per family.
    V0_1_0,
    /// 0.2.0: adds VERSION.
    V0_2_0,
    /// 0.3.0: lists of interfaces, addresses and routes.
    V0_3_0,
    /// 0.3.1: as 0.3.0.
    V0_3_1,
    /// 0.4.0: adds CHECK.
    V0_4_0,
    /// 1.0.0: addresses no longer carry their family.
    V1_0_0,
    /// 1.1.0: adds STATUS, GC and more detail in results.
    V1_1_0,
}

impl SpecVersion {
    /// Every version, oldest first.
    pub const ALL: [Self; 7] =
        [Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// The newest version, in which errors are answered when the runtime named none that is known.
    pub const NEWEST: Self = Self::V1_1_0;

    /// The version as it stands in configurations and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// Says whether this version of the spec has the command.
    ///
    /// # Errors
    /// `CommandTooNew`: CHECK came with 0.4.0, STATUS and GC with 1.1.0.
    pub fn require(self, command: Command) -> Result<(), CniError> {
        let since = match command {
            Command::Add | Command::Del | Command::Version => Self::V0_1_0,
            Command::Check => Self::V0_4_0,
            Command::Status | Command::Gc => Self::V1_1_0,
        };
        if self < since { Err(CniError::CommandTooNew { command, since, found: self }) } else { Ok(()) }
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The names of all versions, oldest first.
#[must_use]
pub fn supported() -> Vec<&'static str> {
    SpecVersion::ALL.into_iter().map(SpecVersion::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_found_by_its_name_and_they_are_in_order() {
        for version in SpecVersion::ALL {
            assert_eq!(SpecVersion::parse(version.as_str()), Some(version));
        }
        assert!(SpecVersion::ALL.is_sorted());
        assert_eq!(SpecVersion::ALL.last(), Some(&SpecVersion::NEWEST));
        for unknown in ["", "1.0", "0.5.0", "1.2.0", " 1.0.0", "v1.0.0"] {
            assert_eq!(SpecVersion::parse(unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn commands_are_refused_before_the_version_that_brought_them() {
        for version in SpecVersion::ALL {
            assert!(version.require(Command::Add).is_ok() && version.require(Command::Del).is_ok());
            assert_eq!(version.require(Command::Check).is_ok(), version >= SpecVersion::V0_4_0, "{version}");
            assert_eq!(version.require(Command::Status).is_ok(), version >= SpecVersion::V1_1_0, "{version}");
            assert_eq!(version.require(Command::Gc).is_ok(), version >= SpecVersion::V1_1_0, "{version}");
        }
    }
}
