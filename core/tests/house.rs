//! The house's own papers tell the truth: paths that ARCHITECTURE.md names exist, and so do the commands of the README.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What stands between single backticks, outside of code blocks.
fn quoted(text: &str) -> BTreeSet<String> {
    let prose: String = text.split("```").step_by(2).collect();
    prose.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_path_in_the_architecture_exists() {
    let first: BTreeSet<String> = fs::read_dir(root())
        .expect("the workspace")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    let text = read("ARCHITECTURE.md");
    let quoted = quoted(&text);
    // A path starts with a name at the workspace's root; everything else is a name of something in the code.
    let paths: Vec<_> =
        quoted.iter().filter(|text| text.split('/').next().is_some_and(|name| first.contains(name))).collect();
    assert!(paths.len() > 30, "only {} paths were found; has the form of the file changed?", paths.len());
    let missing: Vec<_> = paths.into_iter().filter(|path| !root().join(path.trim_end_matches('/')).exists()).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names what is not there: {missing:?}");
}

#[test]
fn every_crate_is_on_the_map() {
    let text = read("ARCHITECTURE.md");
    let manifest = read("Cargo.toml");
    let members = manifest.split("members = [").nth(1).and_then(|rest| rest.split(']').next()).expect("members");
    for member in members.split('"').skip(1).step_by(2) {
        assert!(text.contains(&format!("`{member}/`")), "ARCHITECTURE.md does not name {member}/");
    }
}

#[test]
fn links_between_the_papers_lead_somewhere() {
    for paper in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        for target in read(paper).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            assert!(target.starts_with("http") || root().join(target).exists(), "{paper} links to {target}");
        }
    }
}

#[test]
fn commands_of_the_readme_are_commands_of_x() {
    let script = read("x");
    for line in read("README.md").lines().filter_map(|line| line.strip_prefix("./x ")) {
        let command = line.split_whitespace().next().expect("a command");
        assert!(script.contains(&format!("\n    {command})")), "./x {command} is no command of the script");
    }
}
