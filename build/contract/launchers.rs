//! The launcher of a family of kernels in Rust, and what makes sure that a struct in Rust is the kernels' own.

use super::Fault;
use super::declarations::{Parameter, Struct, cut};
use super::expression::size_of_type;
use super::families::{Family, Instance};
use super::scope::{Local, Scope};
use super::tokens::Token;
use std::collections::HashSet;
use std::fmt::Write as _;

/// A struct with the kernel's parameters as its fields, which is launched.
pub fn launcher(family: &Family, scope: &Scope) -> Result<String, Fault> {
    let (name, place) = (&family.name, &family.place);
    let mut fields = String::new();
    for parameter in &family.parameters {
        let ty = field(parameter).ok_or_else(|| {
            let (name, ty) = (&parameter.name, &parameter.ty.name);
            place.fault(format!("the parameter {name}: Rust has no {ty} to pass, see build/contract/launchers.rs"))
        })?;
        writeln!(fields, "    pub {}: {ty},", parameter.name).unwrap();
    }
    let (generics, given) = match family.is_typed {
        true => ("<'a, E: CudaElement>", "<'_, E>"),
        false => ("<'a>", "<'_>"),
    };
    let implemented = if family.is_typed { "<E: CudaElement>" } else { "" };
    let suffix = if family.is_typed { "Some(E::NAME)" } else { "None" };
    let mut text = String::new();
    let (choice, chosen) = if let [only] = &family.instances[..] {
        ("", format!("let (module, name, most_threads) = {};", told(only, family, scope)?))
    } else {
        writeln!(text, "/// Kernels that [`{name}`] is launched as.\n#[derive(Clone, Copy, Debug, PartialEq, Eq)]")
            .unwrap();
        writeln!(text, "pub enum {name}Instance {{").unwrap();
        let mut arms = String::new();
        for instance in &family.instances {
            writeln!(text, "    {},", instance.name).unwrap();
            let told = told(instance, family, scope)?;
            write!(arms, "\n            {name}Instance::{} => {told},", instance.name).unwrap();
        }
        writeln!(text, "}}").unwrap();
        ("instance: Instance, ", format!("let (module, name, most_threads) = match instance {{{arms}\n        }};"))
    };
    let choice = choice.replace("Instance", &format!("{name}Instance"));
    let parameters: Vec<String> = family
        .parameters
        .iter()
        .map(|parameter| {
            let borrow = if parameter.ty.is_in_place { "" } else { "&" };
            format!("Parameter::of({borrow}self.{})", parameter.name)
        })
        .collect();
    let parameters = parameters.join(", ");
    write!(
        text,
        "/// Line {line} of kernels/{file}.\npub struct {name}{generics} {{\n{fields}}}\n
impl{implemented} {name}{given} {{
    pub fn launch<D: CudaElement>(self, cuda: &Cuda<D>, {choice}grid: impl Into<Grid>) -> Result<()> {{
        {chosen}
        let kernel = KernelName {{ module, name, suffix: {suffix} }};
        let parameters = [{parameters}];
        // SAFETY: these are the kernel's parameters in their order, each of its type, as build.rs read them.
        unsafe {{ cuda.launch(kernel, most_threads, grid.into(), &parameters) }}
    }}
}}\n",
        line = place.line,
        file = place.file,
    )
    .unwrap();
    Ok(text)
}

/// Module, name and most threads of an instance.
fn told(instance: &Instance, family: &Family, scope: &Scope) -> Result<String, Fault> {
    let threads = scope.rust(&instance.threads, &family.place, Local::default())?;
    Ok(format!("({:?}, {:?}, {threads})", instance.module, instance.kernel))
}

/// The type of a launcher's field.
fn field(parameter: &Parameter) -> Option<String> {
    let ty = &parameter.ty;
    if ty.is_pointer {
        let to = match &*ty.name {
            "E" => "E",
            name => number(name)?,
        };
        let pointer = if ty.is_const { format!("In<'a, {to}>") } else { format!("Out<'a, {to}>") };
        return Some(if ty.is_nullable { format!("Option<{pointer}>") } else { pointer });
    }
    match number(&ty.name) {
        Some("bf16") => None,
        Some(number) => Some(number.to_owned()),
        // A struct, which rustc knows or does not.
        None if ty.is_in_place => Some(format!("&'a {}", ty.name)),
        None => Some(ty.name.clone()),
    }
}

fn number(name: &str) -> Option<&'static str> {
    Some(match name {
        "float" => "f32",
        "double" => "f64",
        "bf16" => "bf16",
        "u32" => "u32",
        "i32" | "int" => "i32",
        "u64" => "u64",
        "i64" => "i64",
        _ => return None,
    })
}

/// Structs among the parameters.
pub fn passed(families: &[Family]) -> HashSet<&str> {
    let parameters = families.iter().flat_map(|family| &family.parameters);
    let structs = parameters.filter(|parameter| !parameter.ty.is_pointer && number(&parameter.ty.name).is_none());
    structs.map(|parameter| &*parameter.ty.name).collect()
}

/// Assertions that the struct of that name in Rust has these fields, of these types, at these places.
pub fn twin(of: &Struct, structs: &[&Struct], scope: &Scope) -> Result<String, Fault> {
    let mut text = format!("/// Line {} of kernels/{}.\nconst _: () = {{\n", of.place.line, of.place.file);
    text += &assertions(of, &of.name, structs, scope)?;
    Ok(text + "};\n")
}

fn assertions(of: &Struct, in_rust: &str, structs: &[&Struct], scope: &Scope) -> Result<String, Fault> {
    let local = Local { parameters: &of.template, ..Local::default() };
    let (mut inner, mut checks) = (String::new(), String::new());
    for (name, ty, count) in of.data.iter().flat_map(|statement| fields(statement)) {
        let fault = || of.place.fault(format!("cannot read the struct {}: its field {name}", of.name));
        let first = ty.iter().find(|token| !token.is("const")).ok_or_else(fault)?;
        let (bytes, element) = if ty.last().is_some_and(|token| token.is("*")) {
            (8, Some("u64"))
        } else {
            (size_of_type(&first.text).unwrap_or_default(), number(&first.text))
        };
        let (mut size, mut align) = (bytes.to_string(), bytes.to_string());
        if element.is_none() {
            let of_field = structs.iter().find(|of_field| first.is(&of_field.name)).ok_or_else(fault)?;
            let (full_name, text) = nested(of_field, &ty, of, structs, scope)?;
            inner += &text;
            (size, align) = (format!("size_of::<{full_name}>()"), format!("align_of::<{full_name}>()"));
        }
        if let Some(count) = &count {
            size += &format!(" * {}", scope.rust(count, &of.place, local)?);
        }
        writeln!(checks, "    assert!(offset_of!({in_rust}, {name}) == layout.field({align}, {size}));").unwrap();
        if let Some(element) = element {
            let ty = if count.is_some() { format!("[{element}]") } else { element.to_owned() };
            writeln!(checks, "    let _: fn(&{in_rust}) -> &{ty} = |of| &of.{name};").unwrap();
        }
    }
    Ok(format!(
        "{inner}    let mut layout = Layout::new();\n{checks}    assert!(size_of::<{in_rust}>() == layout.size());\n"
    ))
}

/// The struct that a field of `outer` is, by its name in Rust, with its own assertions.
fn nested(
    of: &Struct,
    ty: &[Token],
    outer: &Struct,
    structs: &[&Struct],
    scope: &Scope,
) -> Result<(String, String), Fault> {
    let local = Local { parameters: &outer.template, ..Local::default() };
    let arguments = ty.iter().position(|token| token.is("<")).map_or(&[][..], |at| &ty[at + 1..ty.len() - 1]);
    let arguments = cut(arguments).into_iter().filter(|argument| !argument.is_empty());
    let arguments: Vec<String> =
        arguments.map(|argument| scope.rust(argument, &outer.place, local)).collect::<Result<_, _>>()?;
    let name = match arguments.is_empty() {
        true => of.name.clone(),
        false => format!("{}<{{ {} }}>", of.name, arguments.join(" }, { ")),
    };
    let values = of.template.iter().zip(&arguments);
    let values: String = values.map(|(name, value)| format!("    const {name}: usize = {value};\n")).collect();
    let text = format!("    {{\n{values}{}    }}\n", assertions(of, &name, structs, scope)?);
    Ok((name, text))
}

/// Name, type and length of each that a statement like `float* x[N]` declares; none if it is a function.
fn fields(statement: &[Token]) -> Vec<(String, Vec<Token>, Option<Vec<Token>>)> {
    if statement.iter().any(|token| token.is("(") || token.is("{")) {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut ty: &[Token] = &[];
    for one in cut(statement) {
        let (one, count) = match one.iter().position(|token| token.is("[")) {
            Some(at) => (&one[..at], Some(one[at + 1..one.len() - 1].to_vec())),
            None => (one, None),
        };
        let Some((name, before)) = one.split_last() else { continue };
        // The second of `u32 a, b` has no type of its own.
        ty = if before.is_empty() { ty } else { before };
        found.push((name.text.to_string(), ty.to_vec(), count));
    }
    found
}
