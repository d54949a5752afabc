//! What names mean in a file, and expressions of them in Rust.

use super::declarations::{Constant, Declarations};
use super::expression::{Expression, Parser};
use super::tokens::{Place, Token};
use super::{Fault, module_of};
use std::collections::HashMap;

enum Meaning {
    /// A constant, with the parameters of its template.
    Constant(usize),
    Function(usize),
    Struct {
        parameters: usize,
        constants: Vec<String>,
    },
}

/// Names of a file and of what it includes.
#[derive(Default)]
pub struct Scope {
    meanings: HashMap<String, Meaning>,
}

/// What an expression may name besides: parameters, and constants and aliases of the struct that it stands in.
#[derive(Clone, Copy, Default)]
pub struct Local<'a> {
    pub parameters: &'a [String],
    pub constants: &'a [Constant],
    pub aliases: &'a [(String, Vec<Token>)],
}

impl Scope {
    pub fn new<'a>(files: impl Iterator<Item = &'a Declarations>) -> Self {
        let mut meanings = HashMap::new();
        for file in files {
            for constant in &file.constants {
                meanings.insert(constant.name.clone(), Meaning::Constant(constant.template.len()));
            }
            for function in &file.functions {
                meanings.insert(function.name.clone(), Meaning::Function(function.parameters.len()));
            }
            for of in &file.structs {
                let constants = of.constants.iter().map(|constant| constant.name.clone()).collect();
                meanings.insert(of.name.clone(), Meaning::Struct { parameters: of.template.len(), constants });
            }
        }
        Scope { meanings }
    }

    /// An integer in Rust.
    pub fn rust(&self, tokens: &[Token], place: &Place, local: Local) -> Result<String, Fault> {
        // An alias stands for a struct, so its tokens take its place.
        let alias = |token: &Token| local.aliases.iter().find(|(name, _)| token.is(name)).map(|(_, is)| is.clone());
        let tokens: Vec<Token> =
            tokens.iter().flat_map(|token| alias(token).unwrap_or_else(|| vec![token.clone()])).collect();
        let is_template = |name: &str| match self.meanings.get(name) {
            Some(Meaning::Constant(parameters) | Meaning::Struct { parameters, .. }) => *parameters > 0,
            _ => false,
        };
        let expression = Parser::new(&tokens, &is_template).all(place)?;
        expression.rust(&|name| self.name(name, local)).ok_or_else(|| {
            let text: Vec<&str> = tokens.iter().map(|token| &*token.text).collect();
            place.fault(format!("{:?} names what is no integer constant of this file or its headers", text.join(" ")))
        })
    }

    fn name(&self, expression: &Expression, local: Local) -> Option<String> {
        let all = |list: &[Expression]| -> Option<Vec<String>> {
            list.iter().map(|one| one.rust(&|name| self.name(name, local))).collect()
        };
        let templated = |list: &[Expression]| -> Option<String> {
            let bare = |one: &Expression| matches!(one, Expression::Integer(_)) || is_name(one);
            let list = list.iter().zip(all(list)?);
            // In braces, Rust would not take a parameter of what is around.
            let list = list.map(|(one, text)| if bare(one) { text } else { format!("{{ {text} }}") });
            Some(list.collect::<Vec<_>>().join(", "))
        };
        match expression {
            Expression::Call(name, arguments) => match self.meanings.get(name)? {
                Meaning::Function(n) if *n == arguments.len() => {
                    Some(format!("{name}({})", all(arguments)?.join(", ")))
                }
                _ => None,
            },
            Expression::Name(names) => match &names[..] {
                [(name, none)] if none.is_empty() && local.parameters.contains(name) => Some(name.clone()),
                [(name, none)] if none.is_empty() && local.constants.iter().any(|c| c.name == *name) => {
                    Some(format!("Self::{name}"))
                }
                [(name, arguments)] => match self.meanings.get(name)? {
                    Meaning::Constant(0) if arguments.is_empty() => Some(name.clone()),
                    Meaning::Constant(n) if *n == arguments.len() => {
                        Some(format!("{name}::<{}>()", templated(arguments)?))
                    }
                    _ => None,
                },
                [(of, arguments), (name, none)] if none.is_empty() => match self.meanings.get(of)? {
                    Meaning::Struct { parameters, constants } if constants.contains(name) => {
                        let is_whole = *parameters == arguments.len();
                        let arguments = templated(arguments).filter(|_| is_whole)?;
                        Some(if arguments.is_empty() {
                            format!("{of}::{name}")
                        } else {
                            format!("{of}::<{arguments}>::{name}")
                        })
                    }
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        }
    }
}

/// Whether it is one name without arguments.
fn is_name(expression: &Expression) -> bool {
    matches!(expression, Expression::Name(names) if matches!(&names[..], [(_, none)] if none.is_empty()))
}

/// The constants of a file in Rust.
pub fn constants(file: &str, declarations: &Declarations, scope: &Scope) -> Result<String, Fault> {
    let mut text = String::new();
    let mut line = |parts: String| text.push_str(&(parts + "\n"));
    for constant in &declarations.constants {
        let local = Local { parameters: &constant.template, ..Local::default() };
        let (name, value) = (&constant.name, scope.rust(&constant.value, &constant.place, local)?);
        line(format!("/// Line {} of kernels/{file}.", constant.place.line));
        line(match &constant.template[..] {
            [] => format!("pub const {name}: usize = {value};"),
            parameters => format!("pub const fn {name}<{}>() -> usize {{ {value} }}", generics(parameters)),
        });
    }
    for function in &declarations.functions {
        let local = Local { parameters: &function.parameters, ..Local::default() };
        let (name, value) = (&function.name, scope.rust(&function.value, &function.place, local)?);
        let parameters: Vec<String> = function.parameters.iter().map(|name| format!("{name}: usize")).collect();
        line(format!("/// Line {} of kernels/{file}.", function.place.line));
        line(format!("pub const fn {name}({}) -> usize {{ {value} }}", parameters.join(", ")));
    }
    for of in declarations.structs.iter().filter(|of| !of.constants.is_empty()) {
        let (name, parameters) = (&of.name, &of.template);
        let (generics, given) = match &parameters[..] {
            [] => (String::new(), String::new()),
            some => (format!("<{}>", generics(some)), format!("<{}>", some.join(", "))),
        };
        line(format!("/// Constants of line {} of kernels/{file}.", of.place.line));
        line(format!("pub struct {name}{generics};\nimpl{generics} {name}{given} {{"));
        for constant in &of.constants {
            let local = Local { parameters, constants: &of.constants, aliases: &of.aliases };
            let value = scope.rust(&constant.value, &constant.place, local)?;
            line(format!("    pub const {}: usize = {value};", constant.name));
        }
        line("}".to_owned());
    }
    Ok(text)
}

fn generics(parameters: &[String]) -> String {
    let parameters: Vec<String> = parameters.iter().map(|name| format!("const {name}: usize")).collect();
    parameters.join(", ")
}

/// The modules that a file's own names stand on.
pub fn imports(includes: &[String]) -> String {
    includes.iter().map(|file| format!("pub use super::{}::*;\n", module_of(file))).collect()
}
