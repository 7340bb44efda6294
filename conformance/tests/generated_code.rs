//! `event-node` commits the code that is generated from its protocol definition, so that its build
//! needs no code generator.

use std::{fs, path::Path};

#[test]
fn committed_code_matches_protocol_definition() {
    let generated = Path::new(concat!(env!("OUT_DIR"), "/server"));
    let committed =
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../event-node/src/wire/generated"));
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.collect();
        names.sort();
        names
    };
    let advice = format!("run: cp {}/*.rs {}/", generated.display(), committed.display());
    assert_eq!(names(generated), names(committed), "{advice}");
    for name in names(generated) {
        let read = |folder: &Path| fs::read_to_string(folder.join(&name)).unwrap();
        assert!(read(generated) == read(committed), "{} differs; {advice}", name.display());
    }
}
