//! The contract between kernels/ and Rust: reads what the kernels' sources declare and writes it down in Rust, a launcher
//! with typed fields for each kernel and the integer constants of each file, so that rustc sees both sides. What cannot be
//! read is an error, with its line.
//!
//! Read are `KERNEL` and `KERNEL_MIN_BLOCKS` (kernels/common.cuh), also where macros declare them; `constexpr` integers of
//! a file or a struct, also of templates over integers; `constexpr` functions of integers with one expression; and the
//! structs that kernels take.

mod declarations;
mod expression;
mod families;
mod launchers;
mod preprocess;
mod scope;
mod tokens;

use declarations::Declarations;
use families::Family;
use scope::Scope;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use tokens::{Piece, Place};

/// What is wrong with a line of a kernel.
#[derive(Debug)]
pub struct Fault {
    place: Place,
    message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "kernels/{}:{}: {}", self.place.file, self.place.line, self.message)
    }
}

/// A file's text in pieces.
pub struct Source {
    pieces: Vec<Piece>,
}

struct File {
    declarations: Declarations,
    includes: Vec<String>,
}

/// The name of the module in Rust that has what a file declares: `gelu` of gelu.cu, `partials_cuh` of partials.cuh.
fn module_of(file: &str) -> String {
    file.strip_suffix(".cu").map_or_else(|| file.replace('.', "_"), str::to_owned)
}

/// Rust of all files, given by name and text.
///
/// # Errors
/// What cannot be read, with its line.
pub fn contract(texts: &[(&str, &str)]) -> Result<String, Fault> {
    let mut sources = HashMap::new();
    for (name, text) in texts {
        sources.insert((*name).to_owned(), Source { pieces: tokens::pieces(name, text)? });
    }
    let mut files = BTreeMap::new();
    for (name, _) in texts {
        files.insert(*name, read(name, &sources)?);
    }
    let kernels = files.iter().flat_map(|(name, file)| {
        let module = name.strip_suffix(".cu").unwrap_or(name);
        file.declarations.kernels.iter().map(move |kernel| (module, kernel))
    });
    let families = families::families(&kernels.collect::<Vec<_>>())?;
    let passed = launchers::passed(&families);
    let mut text = String::new();
    for (name, file) in &files {
        let visible = with_headers(name, &files);
        let scope = Scope::new(visible.iter().map(|file| &file.declarations));
        text += &format!("/// Of kernels/{name}.\npub mod {} {{\nuse super::*;\n", module_of(name));
        text += &scope::imports(&file.includes);
        text += &scope::constants(name, &file.declarations, &scope)?;
        for family in families.iter().filter(|family| home(family) == *name) {
            text += &launchers::launcher(family, &scope)?;
        }
        let structs: Vec<_> = visible.iter().flat_map(|file| &file.declarations.structs).collect();
        for of in file.declarations.structs.iter().filter(|of| passed.contains(&&*of.name)) {
            text += &launchers::twin(of, &structs, &scope)?;
        }
        text += "}\n";
    }
    Ok(text)
}

fn read(name: &str, sources: &HashMap<String, Source>) -> Result<File, Fault> {
    let expanded = preprocess::expand(name, sources)?;
    let declarations = declarations::read(&expanded.tokens)?;
    // Nothing is passed over in silence.
    let words = expanded.tokens.iter().filter(|token| token.is("KERNEL") || token.is("KERNEL_MIN_BLOCKS"));
    if let Some(word) = words.skip(declarations.kernels.len()).last() {
        return Err(word.place.fault("cannot read the kernel that is declared here"));
    }
    if let Some(kernel) = declarations.kernels.first().filter(|_| !name.ends_with(".cu")) {
        return Err(kernel
            .place
            .fault(format!("a header declares {}, which every file that includes it would have", kernel.name)));
    }
    Ok(File { declarations, includes: expanded.includes })
}

/// The file and all that it includes.
fn with_headers<'a>(name: &'a str, files: &'a BTreeMap<&str, File>) -> Vec<&'a File> {
    let (mut names, mut i) = (vec![name], 0);
    while let Some(name) = names.get(i) {
        for include in &files[name].includes {
            if !names.contains(&include.as_str()) {
                names.push(include);
            }
        }
        i += 1;
    }
    // What a file declares itself comes last, so that it is what its name means.
    names.iter().rev().map(|name| &files[name]).collect()
}

/// The file whose module has the launcher: that of the kernels, or the header of the macro that several files use.
fn home(family: &Family) -> String {
    let module = &family.instances[0].module;
    match family.instances.iter().all(|instance| instance.module == *module) {
        true => format!("{module}.cu"),
        false => family.place.file.to_string(),
    }
}
