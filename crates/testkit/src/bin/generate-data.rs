//! Writes the data set of the examples: `generate-data [FOLDER]`, by default the project's `data/`.
//!
//! The same program writes the same files, so that what is in `data/` can be made again.
#![expect(clippy::print_stdout, reason = "a command prints")]

use std::path::{Path, PathBuf};

use highwater_testkit::data;

fn main() -> std::io::Result<()> {
    let folder = std::env::args().nth(1).map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data"),
        PathBuf::from,
    );
    for file in data::files() {
        let path = folder.join(&file.path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, &file.text)?;
        println!("{} ({} bytes)", file.path, file.text.len());
    }
    Ok(())
}
