//! The files of a crate depend one way: no cycle of imports among them.
//!
//! A file may use the items of its parent modules (`super::`), which is no dependency here: a module and
//! its private children are one unit. Test code, `mod` declarations and re-exports are no dependency
//! either. This is a scan of the text: it sees paths (`crate::`, `super::`, `self::`, `child::`), and no
//! calls of methods.

#![expect(clippy::unwrap_used, reason = "a failed precondition fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// First line of a file that a generator wrote.
const GENERATED: &str = "// This file is @generated";

/// Path of a module in its crate; empty for the crate's root.
type ModulePath = Vec<String>;

/// One file of a crate.
#[derive(Default)]
struct Module {
    /// Path of the file below `src`.
    file: String,
    /// The text without comments, strings and test code.
    code: String,
    /// Modules that the file declares, without those of tests.
    children: BTreeSet<String>,
    /// Absolute paths that the file imports or names.
    paths: BTreeSet<ModulePath>,
    /// Re-exported names with their absolute paths.
    re_exports: BTreeMap<String, ModulePath>,
}

/// The files of a crate by module path.
type Crate = BTreeMap<ModulePath, Module>;

fn split_path(path: &str) -> ModulePath {
    path.split("::").map(|segment| segment.trim().to_owned()).collect()
}

/// Removes comments, the contents of string literals, and the test module at the end of a file.
fn strip_code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut code = String::new();
    for line in text.lines() {
        let mut is_string = false;
        let mut previous = ' ';
        for (at, letter) in line.char_indices() {
            if letter == '"' && previous != '\\' && previous != '\'' {
                is_string = !is_string;
            } else if !is_string {
                if line[at..].starts_with("//") {
                    break;
                }
                code.push(letter);
            }
            previous = letter;
        }
        code.push('\n');
    }
    code
}

/// Expands a tree of imports, such as `a::{b, c::d as e}`, to pairs of a path and its local name.
fn expand_imports(tree: &str) -> Vec<(String, String)> {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let (path, name) = match tree.split_once(" as ") {
            Some((path, name)) => (path.trim(), name.trim()),
            None => (tree, tree.rsplit("::").next().unwrap_or(tree)),
        };
        return vec![(path.to_owned(), name.to_owned())];
    };
    let prefix = &tree[..open];
    let inner = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
    let mut depth = 0;
    let branches = inner.split(|letter: char| {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        letter == ',' && depth == 0
    });
    let branches = branches.filter(|branch| !branch.trim().is_empty());
    branches
        .flat_map(expand_imports)
        .map(|(path, name)| match path.as_str() {
            "self" => {
                let module = prefix.trim_end_matches("::");
                (module.to_owned(), module.rsplit("::").next().unwrap_or(module).to_owned())
            }
            _ => (format!("{prefix}{path}"), name),
        })
        .collect()
}

/// Makes a path absolute that a file of this module names; `None` if it leads out of the crate.
fn to_absolute(path: &str, module: &[String], children: &BTreeSet<String>) -> Option<ModulePath> {
    let mut segments = split_path(path);
    let mut base = module.to_vec();
    match segments.first()?.as_str() {
        "crate" => base.clear(),
        "self" => {}
        "super" => {
            while segments.get(1).is_some_and(|segment| segment == "super") {
                segments.remove(0);
                base.pop()?;
            }
            base.pop()?;
        }
        child if children.contains(child) => {
            base.extend(segments);
            return Some(base);
        }
        _ => return None,
    }
    base.extend(segments.into_iter().skip(1));
    Some(base)
}

/// Returns the paths in the code outside of `use` statements.
fn find_inline_paths(code: &str) -> impl Iterator<Item = &str> {
    code.split(|letter: char| !(letter.is_alphanumeric() || letter == '_' || letter == ':'))
        .filter(|path| path.contains("::"))
        .map(|path| path.trim_matches(':'))
}

/// Splits the code into its `use` statements and the rest.
fn split_imports(code: &str) -> (Vec<(bool, String)>, String) {
    let (mut imports, mut rest) = (Vec::new(), String::new());
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let words = line.trim_start();
        let is_public = words.starts_with("pub");
        let statement = match words.split_once("use ") {
            Some((before, tree)) if before.is_empty() || is_public && before.ends_with(' ') => tree,
            Some(_) | None => {
                rest.push_str(line);
                rest.push('\n');
                continue;
            }
        };
        let mut tree = statement.to_owned();
        while !tree.contains(';') {
            tree.push_str(lines.next().unwrap());
        }
        imports.push((is_public, tree.replace(';', "")));
    }
    (imports, rest)
}

impl Module {
    fn parse(file: String, module: &[String], text: &str) -> Self {
        let code = strip_code(text);
        let (imports, code) = split_imports(&code);
        let mut children = BTreeSet::new();
        let mut before = "";
        for line in code.lines() {
            if let Some((_, name)) = line.trim().split_once("mod ")
                && let Some(name) = name.strip_suffix(';')
                && before != "#[cfg(test)]"
            {
                children.insert(name.to_owned());
            }
            before = line.trim();
        }
        let mut parsed = Self { file, children, ..Self::default() };
        for (is_public, tree) in imports {
            for (path, name) in expand_imports(&tree) {
                let Some(path) = to_absolute(&path, module, &parsed.children) else { continue };
                if is_public {
                    parsed.re_exports.insert(name, path);
                } else {
                    parsed.paths.insert(path);
                }
            }
        }
        let inline = find_inline_paths(&code);
        let inline = inline.filter_map(|path| to_absolute(path, module, &parsed.children));
        parsed.paths.extend(inline.collect::<Vec<_>>());
        // A file that uses a name that it re-exports depends on it.
        let words: BTreeSet<_> =
            code.split(|letter: char| !(letter.is_alphanumeric() || letter == '_')).collect();
        let used = parsed.re_exports.iter().filter(|(name, _)| words.contains(name.as_str()));
        parsed.paths.extend(used.map(|(_, path)| path.clone()).collect::<Vec<_>>());
        parsed.code = code;
        parsed
    }

    fn defines(&self, name: &str) -> bool {
        ["fn", "struct", "enum", "trait", "type", "const", "static", "union"].iter().any(|kind| {
            self.code.match_indices(&format!("{kind} {name}")).any(|(at, found)| {
                let next = self.code[at + found.len()..].chars().next();
                next.is_none_or(|letter| !letter.is_alphanumeric() && letter != '_')
            })
        })
    }
}

/// Returns the file that defines what the path names, following re-exports.
fn resolve(path: &[String], modules: &Crate) -> Option<ModulePath> {
    let n_module = (0..=path.len()).rev().find(|n| modules.contains_key(&path[..*n]))?;
    let (found, rest) = path.split_at(n_module);
    let module = &modules[found];
    if let Some(name) = rest.first() {
        if let Some(target) = module.re_exports.get(name).filter(|target| *target != path) {
            let target: ModulePath = target.iter().chain(&rest[1..]).cloned().collect();
            return resolve(&target, modules);
        }
        let globs = module.re_exports.get("*").into_iter();
        for glob in globs {
            let target = resolve(&glob[..glob.len() - 1], modules)?;
            if modules[&target].defines(name) {
                return Some(target);
            }
        }
    }
    Some(found.to_vec())
}

fn read_modules(folder: &Path, module: &[String], modules: &mut Crate, root: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut child = module.to_vec();
        if path.is_dir() {
            child.push(name);
            read_modules(&path, &child, modules, root);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            if !(module.is_empty() && (name == "lib" || name == "main")) {
                child.push(name);
            }
            let file = path.strip_prefix(root).unwrap().display().to_string();
            let text = fs::read_to_string(&path).unwrap();
            if text.starts_with(GENERATED) {
                continue;
            }
            modules.insert(child.clone(), Module::parse(file, &child, &text));
        }
    }
}

/// Returns the files that each file depends on, without its parent modules.
fn find_dependencies(modules: &Crate) -> BTreeMap<&ModulePath, BTreeSet<ModulePath>> {
    let declared = |path: &ModulePath| {
        path.split_last().is_none_or(|(name, parent)| {
            modules.get(parent).is_some_and(|parent| parent.children.contains(name))
        })
    };
    modules
        .iter()
        .filter(|(path, _)| declared(path))
        .map(|(path, module)| {
            let targets = module.paths.iter().filter_map(|target| resolve(target, modules));
            (path, targets.filter(|target| !path.starts_with(target)).collect())
        })
        .collect()
}

/// Returns the groups of files that depend on each other, by file name.
fn find_cycles(modules: &Crate) -> BTreeSet<BTreeSet<String>> {
    let dependencies = find_dependencies(modules);
    let reachable: BTreeMap<_, BTreeSet<_>> = dependencies
        .keys()
        .map(|path| {
            let mut found = BTreeSet::new();
            let mut pending = vec![*path];
            while let Some(next) = pending.pop() {
                for target in dependencies.get(next).into_iter().flatten() {
                    if found.insert(target) {
                        pending.push(target);
                    }
                }
            }
            (*path, found)
        })
        .collect();
    let cyclic = reachable.iter().filter(|(path, found)| found.contains(*path));
    cyclic
        .map(|(path, found)| {
            let members = found
                .iter()
                .filter(|other| reachable.get(*other).is_some_and(|found| found.contains(*path)));
            members.map(|member| modules[*member].file.clone()).collect()
        })
        .collect()
}

fn read_crate(folder: &Path) -> Crate {
    let mut modules = Crate::new();
    read_modules(&folder.join("src"), &[], &mut modules, &folder.join("src"));
    modules
}

fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn workspace_cycles() -> BTreeSet<(String, BTreeSet<String>)> {
    let crates = fs::read_dir(workspace_root()).unwrap().map(|entry| entry.unwrap().path());
    let mut cycles = BTreeSet::new();
    for folder in crates.filter(|folder| folder.join("Cargo.toml").is_file()) {
        let name = folder.file_name().unwrap().to_str().unwrap();
        cycles.extend(
            find_cycles(&read_crate(&folder)).into_iter().map(|files| (name.to_owned(), files)),
        );
    }
    cycles
}

#[test]
fn files_of_a_crate_depend_one_way() {
    assert_eq!(workspace_cycles(), BTreeSet::new());
}

/// `event-log/src/store` knows streams and bytes, `event-log/src/orders` what they mean.
#[test]
fn event_store_client_knows_nothing_of_orders() {
    let modules = read_crate(&workspace_root().join("event-log"));
    let is_in = |path: &ModulePath, folder: &str| path.first().is_some_and(|name| name == folder);
    let dependencies = find_dependencies(&modules);
    let store = dependencies.iter().filter(|(path, _)| is_in(path, "store"));
    let upward: Vec<_> =
        store.filter(|(_, targets)| targets.iter().any(|it| is_in(it, "orders"))).collect();
    assert!(upward.is_empty(), "{upward:?}");
    assert!(dependencies.values().flatten().any(|target| is_in(target, "store")));
}

fn parse_crate(files: &[(&str, &str)]) -> Crate {
    let parse = |(path, text): &(&str, &str)| {
        let module: ModulePath = if path.is_empty() { Vec::new() } else { split_path(path) };
        (module.clone(), Module::parse((*path).to_owned(), &module, text))
    };
    files.iter().map(parse).collect()
}

#[test]
fn cycle_through_imports_and_paths_is_found() {
    let modules = parse_crate(&[
        ("", "mod a;\nmod b;\nmod c;\npub use a::A;\n"),
        ("a", "mod inner;\npub use inner::Inner;\npub struct A;\nfn f() { crate::b::g() }\n"),
        ("a::inner", "use super::super::{c::{C, D}};\npub struct Inner;\n"),
        ("b", "use crate::{a::Inner, c};\n"),
        ("c", "use super::b::B as Other;\npub struct C;\n"),
    ]);
    let cycle = ["a::inner", "b", "c"].map(str::to_owned).into();
    assert_eq!(find_cycles(&modules), [cycle].into());
}

#[test]
fn tests_comments_and_re_exports_are_no_dependency() {
    let modules = parse_crate(&[
        ("", "mod a;\nmod b;\npub use a::A;\n"),
        ("a", "//! See crate::b.\nuse crate::b::B;\npub struct A;\n"),
        ("b", "pub struct B; // crate::a\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n"),
    ]);
    assert_eq!(find_cycles(&modules), BTreeSet::new());
}
