//! `ecash words`

use std::fmt;

use federation_client::{Folder, Result};
use serde::Serialize;

use crate::output::print;

#[derive(Serialize)]
struct Output {
    words: String,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

pub fn run(folder: &Folder, json: bool) -> Result<()> {
    print(&Output { words: folder.words()?.as_str().to_owned() }, json)
}
