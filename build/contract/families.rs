//! Kernels that have one launcher: what one KERNEL of a macro declares, and the two element types of a kernel.

use super::Fault;
use super::declarations::{Kernel, Parameter};
use super::tokens::{Place, Token};

/// Kernels with the same parameters.
pub struct Family {
    pub place: Place,
    /// Of the launcher, such as `BiasGeluForward`.
    pub name: String,
    /// Whether each instance exists for f32 and for bf16, with `_f32` and `_bf16` behind its name.
    pub is_typed: bool,
    /// A pointer's type may be `E`, the element.
    pub parameters: Vec<Parameter>,
    /// One, whose name is empty, or several that a caller chooses from.
    pub instances: Vec<Instance>,
}

pub struct Instance {
    /// Such as `N256`.
    pub name: String,
    /// A file of kernels/ without its extension.
    pub module: String,
    /// Of the kernel, without the element.
    pub kernel: String,
    pub threads: Vec<Token>,
}

/// A kernel, for both element types if there are two.
struct Typed<'a> {
    module: &'a str,
    name: &'a str,
    is_typed: bool,
    kernel: &'a Kernel,
    parameters: Vec<Parameter>,
}

/// The families of all files, in the order of their first kernels; `kernels` with their files' names, without extension.
pub fn families(kernels: &[(&str, &Kernel)]) -> Result<Vec<Family>, Fault> {
    for (i, (module, kernel)) in kernels.iter().enumerate() {
        if kernels[..i].iter().any(|(other, twin)| other == module && twin.name == kernel.name) {
            return Err(kernel.place.fault(format!("kernels/{module}.cu declares {} twice", kernel.name)));
        }
    }
    let mut groups: Vec<Vec<Typed>> = Vec::new();
    for (module, kernel) in kernels {
        let Some(typed) = typed(module, kernel, kernels)? else { continue };
        let of_place = |group: &&mut Vec<Typed>| group[0].kernel.place == kernel.place;
        match groups.iter_mut().find(of_place) {
            Some(group) => group.push(typed),
            None => groups.push(vec![typed]),
        }
    }
    groups.into_iter().map(family).collect()
}

/// The kernel with its twin of the other element type, of which only the f32 one counts.
fn typed<'a>(module: &'a str, kernel: &'a Kernel, all: &[(&str, &Kernel)]) -> Result<Option<Typed<'a>>, Fault> {
    let twin_of = |name: &str| all.iter().find(|(other, twin)| *other == module && twin.name == name);
    let missing = |name: String| kernel.place.fault(format!("{} is there, and {name} is not", kernel.name));
    if let Some(name) = kernel.name.strip_suffix("_bf16") {
        let twin = format!("{name}_f32");
        return twin_of(&twin).map(|_| None).ok_or_else(|| missing(twin));
    }
    let Some(name) = kernel.name.strip_suffix("_f32") else {
        let parameters = kernel.parameters.clone();
        return Ok(Some(Typed { module, name: &kernel.name, is_typed: false, kernel, parameters }));
    };
    let twin = format!("{name}_bf16");
    let (_, twin) = twin_of(&twin).ok_or_else(|| missing(twin))?;
    let differ = || kernel.place.fault(format!("{} and {} differ in more than their elements", kernel.name, twin.name));
    if kernel.parameters.len() != twin.parameters.len() {
        return Err(differ());
    }
    let of_both = |(ours, theirs): (&Parameter, &Parameter)| {
        let mut both = ours.clone();
        if (&*ours.ty.name, &*theirs.ty.name) == ("float", "bf16") && ours.ty.is_pointer {
            both.ty.name = "E".to_owned();
        }
        let mut widened = theirs.clone();
        widened.ty.name = if both.ty.name == "E" { "E".to_owned() } else { widened.ty.name };
        (both == widened).then_some(both).ok_or_else(differ)
    };
    let parameters = kernel.parameters.iter().zip(&twin.parameters).map(of_both).collect::<Result<_, _>>()?;
    Ok(Some(Typed { module, name, is_typed: true, kernel, parameters }))
}

fn family(group: Vec<Typed>) -> Result<Family, Fault> {
    let first = &group[0];
    for other in &group[1..] {
        if other.parameters != first.parameters || other.is_typed != first.is_typed {
            let message = format!("{} and {} come of one KERNEL, and their parameters differ", first.name, other.name);
            return Err(other.kernel.place.fault(message));
        }
    }
    let words: Vec<Vec<&str>> = group.iter().map(|kernel| kernel.name.split('_').collect()).collect();
    let begin = if group.len() == 1 { words[0].len() } else { common(&words) };
    let ends: Vec<Vec<&str>> = words.iter().map(|words| words[begin..].iter().rev().copied().collect()).collect();
    let end = if group.len() == 1 { 0 } else { common(&ends) };
    let name = words[0][..begin].iter().chain(&words[0][words[0].len() - end..]);
    Ok(Family {
        place: first.kernel.place.clone(),
        name: camel_case(name.copied()),
        is_typed: first.is_typed,
        parameters: first.parameters.clone(),
        instances: group
            .iter()
            .zip(&words)
            .map(|(kernel, words)| Instance {
                name: instance(&words[begin..words.len() - end]),
                module: kernel.module.to_owned(),
                kernel: kernel.name.to_owned(),
                threads: kernel.kernel.threads.clone(),
            })
            .collect(),
    })
}

/// How many words all begin with.
fn common(all: &[Vec<&str>]) -> usize {
    (0..).take_while(|&i| all[0].get(i).is_some_and(|word| all.iter().all(|words| words.get(i) == Some(word)))).count()
}

fn camel_case<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

fn instance(words: &[&str]) -> String {
    let name = camel_case(words.iter().copied());
    match name.chars().next() {
        None => "Plain".to_owned(),
        Some(first) if first.is_ascii_digit() => format!("N{name}"),
        Some(_) => name,
    }
}
