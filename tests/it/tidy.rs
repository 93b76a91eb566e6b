//! The house rules that a machine can check: floors, heads of files, lengths, no paths of a machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The floor of each package; a package may use only packages below its own floor.
const FLOORS: [(&str, u32); 11] = [
    ("highwater-core", 10),
    ("highwater-storage", 15),
    ("highwater-state", 20),
    ("highwater-checkpoint", 20),
    ("highwater-connectors", 20),
    ("highwater-plan", 30),
    ("highwater-engine", 40),
    ("highwater", 50),
    ("highwater-slt", 55),
    ("highwater-testkit", 60),
    ("highwater-cli", 60),
];

/// The longest file, without its tests.
const FILE_LINES: usize = 600;
/// The longest function.
const FUNCTION_LINES: usize = 80;
/// Nine functions of ten are at most this long.
const FUNCTION_P90: usize = 25;
/// The longest that the loop of the engine may be.
const LOOP_LINES: usize = 60;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn arrows_between_packages_point_downward() {
    let floors = BTreeMap::from(FLOORS);
    for package in packages() {
        let name = text(&package["name"]);
        let floor = *floors
            .get(name)
            .unwrap_or_else(|| panic!("`{name}` has no floor: add it to FLOORS"));
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let other = text(&dependency["name"]);
            let for_tests = dependency["kind"] == "dev";
            if let (Some(below), false) = (floors.get(other), for_tests) {
                assert!(*below < floor, "`{name}` must not use `{other}`");
            }
        }
    }
}

fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata failed");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    metadata["packages"]
        .as_array()
        .expect("a list of packages")
        .clone()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    let bare: Vec<PathBuf> = rust_files()
        .into_iter()
        .filter(|path| !read(path).starts_with("//!"))
        .collect();
    assert!(bare.is_empty(), "these do not begin with `//!`: {bare:?}");
}

#[test]
fn files_are_short() {
    let long: Vec<String> = rust_files()
        .iter()
        .filter(|path| !is_test(path))
        .map(|path| (path, without_tests(&read(path)).lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn functions_are_short() {
    let mut lengths = Vec::new();
    let mut long = Vec::new();
    for path in rust_files().iter().filter(|path| !is_test(path)) {
        for (name, lines) in functions(without_tests(&read(path))) {
            if lines > FUNCTION_LINES {
                long.push(format!("{}: `{name}` has {lines} lines", path.display()));
            }
            lengths.push(lines);
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
    lengths.sort_unstable();
    let p90 = lengths[lengths.len() * 9 / 10];
    assert!(
        p90 <= FUNCTION_P90,
        "one function in ten is over {p90} lines"
    );
}

#[test]
fn the_loop_fits_on_one_screen() {
    let code = read(&root().join("crates/engine/src/run.rs"));
    let code = without_tests(&code);
    let lines: Vec<&str> = code.lines().collect();
    let longest = lines
        .iter()
        .enumerate()
        .filter(|(_, line)| {
            let line = line.trim_start();
            line.starts_with("loop {") || line.starts_with("while ")
        })
        .map(|(at, line)| block(&lines[at..], indent(line)))
        .max();
    let longest = longest.unwrap_or_else(|| panic!("run.rs has no loop"));
    assert!(longest <= LOOP_LINES, "the loop has {longest} lines");
}

#[test]
fn nothing_names_a_place_on_somebodys_machine() {
    // Put together here, so that this file does not contain them.
    let places = ["home", "work", "Users", "root"].map(|folder| format!("/{folder}/"));
    let mut found = Vec::new();
    for path in files(
        root(),
        &["rs", "toml", "md", "yml", "json", "txt", "csv", "sql"],
    ) {
        for (number, line) in read(&path).lines().enumerate() {
            let hit = places.iter().any(|place| names_place(line, place));
            if hit {
                found.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "paths of a machine: {found:?}");
}

/// True when `place` stands at the beginning of a path, not in the middle of a URL or of words.
fn names_place(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '/' | '-' | '_' | '}'))
    })
}

/// Every Rust file of the project.
fn rust_files() -> Vec<PathBuf> {
    files(root(), &["rs"])
}

fn files(folder: &Path, ends: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                found.extend(files(&path, ends));
            }
        } else if ends.iter().any(|end| name.ends_with(&format!(".{end}"))) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Files that hold nothing but tests.
fn is_test(path: &Path) -> bool {
    let path = path.strip_prefix(root()).expect("a file of the project");
    let is = |name: &str| path.components().any(|part| part.as_os_str() == name);
    is("tests") || is("benches") || path.ends_with("tests.rs")
}

/// The code before the inline test module.
fn without_tests(code: &str) -> &str {
    code.split("\n#[cfg(test)]\nmod ").next().unwrap_or(code)
}

/// Name and length of each function, by the indentation that rustfmt gives.
fn functions(code: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let starts = lines.iter().enumerate().filter_map(|(at, line)| {
        let name = function_name(line.trim_start())?;
        Some((at, indent(line), name.to_owned()))
    });
    starts
        .map(|(at, indent, name)| (name, block(&lines[at..], indent)))
        .collect()
}

/// The name, when the line begins a function.
fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let qualifies = |word: &str| {
        matches!(
            word,
            "async" | "const" | "unsafe" | "pub" | "extern" | "\"C\""
        ) || word.starts_with("pub(")
    };
    let name = after.split(['(', '<']).next()?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    (before.split_whitespace().all(qualifies) && is_name).then_some(name)
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// How many lines the block has that the first line begins: a declaration ends with `;`, a body with
/// a `}` below its beginning.
fn block(lines: &[&str], indent: usize) -> usize {
    let end = lines.iter().position(|line| {
        let inner = line.trim();
        self::indent(line) == indent
            && (inner == "}" || inner.ends_with("};") || inner.ends_with(';'))
            || self::indent(line) == indent && inner.ends_with("{}")
            || self::indent(line) == indent && inner.contains("{ ") && inner.ends_with('}')
    });
    end.map_or(lines.len(), |at| at + 1)
}

#[test]
fn the_measure_of_functions_is_right() {
    let code = "impl A {\n    fn a(&self) -> u8 {\n        1\n    }\n\n    fn b();\n}\n\npub(crate) async fn c() {}\n\
                fn d(\n    x: u8,\n) -> u8 {\n    x\n}\n";
    let expected = [("a", 3), ("b", 1), ("c", 1), ("d", 5)].map(|(n, l)| (n.to_owned(), l));
    assert_eq!(functions(code), expected);
}
