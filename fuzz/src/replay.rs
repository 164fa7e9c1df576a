//! Every input of every corpus, as ordinary tests: what was found once stays found.

use std::{
    any::Any,
    fs, io,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    process::ExitCode,
};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::Target;

/// Runs the tests that the command line selects.
pub(crate) fn tests(targets: &[Target]) -> ExitCode {
    let trials = targets.iter().map(|target| {
        let target = *target;
        Trial::test(target.name, move || replay(&target.corpus_dir(), target.run))
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// Runs every input of a directory and names those that fail.
fn replay(corpus: &Path, run: fn(&[u8])) -> Result<(), Failed> {
    let paths = inputs(corpus).map_err(|error| format!("cannot read {}: {error}", corpus.display()))?;
    if paths.is_empty() {
        return Err(format!("{} holds no input; give the target some to start from", corpus.display()).into());
    }
    let mut wrong = Vec::new();
    for path in &paths {
        let input = fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| run(&input))) {
            wrong.push(format!("{}: {}", path.display(), said(&*payload)));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// The inputs of a directory, sorted; what is hidden is none.
pub(crate) fn inputs(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

fn said(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("it panicked")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuses_b(input: &[u8]) {
        assert!(!input.contains(&b'b'), "there is a b");
    }

    #[test]
    fn failing_input_is_named_and_the_others_are_run_all_the_same() {
        let directory = tempfile::tempdir().expect("directory");
        for name in ["1-bad", "2-good", "3-bad"] {
            fs::write(directory.path().join(name), name).expect("write");
        }
        let error = replay(directory.path(), refuses_b).expect_err("two fail");
        let message = error.message().unwrap_or_default();
        assert!(message.contains("1-bad: there is a b") && message.contains("3-bad: there is a b"), "{message}");
        assert!(!message.contains("good"), "{message}");
    }

    #[test]
    fn corpus_without_input_proves_nothing_and_fails() {
        let directory = tempfile::tempdir().expect("directory");
        fs::write(directory.path().join(".gitkeep"), "b").expect("write");
        assert!(replay(directory.path(), refuses_b).is_err());
        assert!(replay(&directory.path().join("none"), refuses_b).is_err());
    }
}
