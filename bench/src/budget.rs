//! How many instructions the verifier may go through: `budget.toml`, with a test that holds programs to it.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{BenchError, programs::Program};

const HEAD: &str = "\
# How many instructions the verifier may go through per program, and how many it went through at last.
#
# `cargo nextest run -p kinesin-bench budget` fails above a limit. The number depends on kernel and compiler, not on the
# machine's speed. Whoever needs more raises the limit on purpose: `./x bench programs --update-budget` sets every
# limit to a tenth above what it measures. The kernel's own limit is 1,000,000 a program.
";

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Budget {
    /// Per program.
    pub programs: BTreeMap<String, Entry>,
}

/// A program's line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Entry {
    /// The most that is allowed.
    pub limit: u32,
    /// What was measured when the limit was set, and on which kernel.
    pub measured: u32,
    /// That kernel.
    pub kernel: String,
}

/// A program that is over its budget, or not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excess {
    /// The program.
    pub program: String,
    /// What is wrong, with the way out.
    pub reason: String,
}

impl Budget {
    /// Where the file is.
    #[must_use]
    pub fn path() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("budget.toml")
    }

    /// Reads the file.
    ///
    /// # Errors
    /// `Io` when it is not there or not of the form of [`Budget`].
    pub fn load() -> Result<Self, BenchError> {
        let path = Self::path();
        let text = fs::read_to_string(&path).map_err(BenchError::io(format!("read {}", path.display())))?;
        let parsed = toml::from_str(&text).map_err(std::io::Error::other);
        parsed.map_err(BenchError::io(format!("read {}", path.display())))
    }

    /// A budget of a tenth above what was measured, rounded up to hundreds.
    #[must_use]
    pub fn around(programs: &[Program], kernel: &str) -> Self {
        let limit = |verified: u32| (verified + verified / 10).div_ceil(100) * 100;
        let entry = |program: &Program| {
            let entry = Entry { limit: limit(program.verified), measured: program.verified, kernel: kernel.to_owned() };
            (program.name.to_owned(), entry)
        };
        Self { programs: programs.iter().map(entry).collect() }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// `Io` when it cannot be written.
    pub fn save(&self) -> Result<(), BenchError> {
        let path = Self::path();
        let text = toml::to_string(self).map_err(std::io::Error::other);
        let text = text.map_err(BenchError::io("write down the budget"))?;
        fs::write(&path, format!("{HEAD}\n{text}")).map_err(BenchError::io(format!("write {}", path.display())))
    }

    /// What is over budget; programs without a line and lines without a program count as well.
    #[must_use]
    pub fn exceeded(&self, programs: &[Program]) -> Vec<Excess> {
        let update = "`./x bench programs --update-budget` sets it";
        let excess = |program: &str, reason: String| Excess { program: program.to_owned(), reason };
        let mut found = Vec::new();
        for program in programs {
            match self.programs.get(program.name) {
                None => found.push(excess(program.name, format!("no limit is set; {update}"))),
                Some(entry) if program.verified > entry.limit => found.push(excess(
                    program.name,
                    format!("{} verified instructions, {} are allowed; {update} anew", program.verified, entry.limit),
                )),
                // A count that the kernel does not tell proves nothing. Kernel: 5.16 tells.
                Some(_) if program.verified == 0 => {
                    found.push(excess(program.name, "the kernel tells no count".to_owned()));
                }
                Some(_) => {}
            }
        }
        for name in self.programs.keys().filter(|name| programs.iter().all(|program| program.name != name.as_str())) {
            found.push(excess(name, format!("there is no such program any more; {update}")));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &'static str, verified: u32) -> Program {
        Program { name, verified, verified_native: 1, translated: 1 }
    }

    #[test]
    fn more_than_the_limit_is_told_with_both_numbers() {
        let budget = Budget::around(&[program("a", 1000), program("b", 2000)], "6.18");
        assert_eq!(budget.programs["a"].limit, 1100);
        assert!(budget.exceeded(&[program("a", 1100), program("b", 1)]).is_empty());
        let found = budget.exceeded(&[program("a", 1101), program("b", 1)]);
        assert_eq!(found.len(), 1);
        assert!(found[0].reason.contains("1101") && found[0].reason.contains("1100"), "{found:?}");
    }

    #[test]
    fn programs_without_a_limit_and_limits_without_a_program_are_told() {
        let budget = Budget::around(&[program("old", 1000)], "6.18");
        let found = budget.exceeded(&[program("new", 10)]);
        assert_eq!(found.iter().map(|excess| excess.program.as_str()).collect::<Vec<_>>(), ["new", "old"]);
        assert_eq!(budget.exceeded(&[program("old", 0)]).len(), 1, "a kernel that tells no count");
    }
}
