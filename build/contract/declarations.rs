//! What a file declares at its own level: kernels, integer constants, and structs.

use super::Fault;
use super::tokens::{Place, Token};

/// A constant, of a file or of a struct. Of a template, it has parameters.
#[derive(Debug)]
pub struct Constant {
    pub name: String,
    pub place: Place,
    pub template: Vec<String>,
    pub value: Vec<Token>,
}

/// A function whose body is one `return`.
#[derive(Debug)]
pub struct Function {
    pub name: String,
    pub place: Place,
    pub parameters: Vec<String>,
    pub value: Vec<Token>,
}

#[derive(Debug)]
pub struct Struct {
    pub name: String,
    pub place: Place,
    pub template: Vec<String>,
    pub constants: Vec<Constant>,
    /// `using name = ...`.
    pub aliases: Vec<(String, Vec<Token>)>,
    /// Statements that may be data.
    pub data: Vec<Vec<Token>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Type {
    pub name: String,
    pub is_pointer: bool,
    pub is_const: bool,
    /// A pointer that may be null.
    pub is_nullable: bool,
    /// A struct that is read where it lies.
    pub is_in_place: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    pub name: String,
    pub ty: Type,
}

#[derive(Debug)]
pub struct Kernel {
    pub name: String,
    /// Where its list begins, wherever that is: what a macro declares has one place.
    pub place: Place,
    pub threads: Vec<Token>,
    pub parameters: Vec<Parameter>,
}

#[derive(Debug, Default)]
pub struct Declarations {
    pub constants: Vec<Constant>,
    pub functions: Vec<Function>,
    pub structs: Vec<Struct>,
    pub kernels: Vec<Kernel>,
}

/// Types of constants that Rust has as `usize`.
const INTEGERS: [&str; 6] = ["int", "i32", "u32", "i64", "u64", "size_t"];
const OPEN: [&str; 3] = ["(", "{", "["];
const CLOSED: [&str; 3] = [")", "}", "]"];

struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
}

pub fn read(tokens: &[Token]) -> Result<Declarations, Fault> {
    let mut declarations = Declarations::default();
    let mut reader = Reader { tokens, at: 0 };
    // The parameters of a template that has just begun; nothing where one of them is a type.
    let mut template = Some(Vec::new());
    while let Some(token) = reader.peek() {
        match &*token.text {
            "template" => {
                template = reader.template();
                continue;
            }
            "constexpr" => reader.constant(template.take(), &mut declarations)?,
            "struct" => declarations.structs.extend(reader.structure(template.take())?),
            "KERNEL" | "KERNEL_MIN_BLOCKS" => declarations.kernels.push(reader.kernel()?),
            text if OPEN.contains(&text) => drop(reader.group()?),
            ";" | "}" => reader.at += 1,
            _ => {
                reader.at += 1;
                continue;
            }
        }
        template = Some(Vec::new());
    }
    Ok(declarations)
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    fn next_is(&self, text: &str) -> bool {
        self.peek().is_some_and(|token| token.is(text))
    }

    /// What stands between the brackets that begin here. No kernel does.
    fn group(&mut self) -> Result<&'a [Token], Fault> {
        let first = self.at;
        let mut depth = 0;
        while let Some(token) = self.peek() {
            self.at += 1;
            if token.is("KERNEL") || token.is("KERNEL_MIN_BLOCKS") {
                return Err(token.place.fault("a kernel is declared at the file's own level, not within brackets"));
            }
            depth += i32::from(OPEN.contains(&&*token.text)) - i32::from(CLOSED.contains(&&*token.text));
            if depth == 0 {
                return Ok(&self.tokens[first + 1..self.at - 1]);
            }
        }
        Err(self.tokens[first].place.fault("this bracket is never closed"))
    }

    /// The integers of `template <int A, int B>`; nothing where there are types.
    fn template(&mut self) -> Option<Vec<String>> {
        let first = self.at + 1;
        let mut depth = 0;
        loop {
            self.at += 1;
            let token = self.peek()?;
            depth += i32::from(token.is("<")) - i32::from(token.is(">"));
            if depth == 0 {
                break;
            }
        }
        self.at += 1;
        let parameters = cut(&self.tokens[first + 1..self.at - 1]);
        parameters
            .into_iter()
            .map(|parameter| match parameter {
                [ty, name] if INTEGERS.iter().any(|integer| ty.is(integer)) => Some(name.text.to_string()),
                _ => None,
            })
            .collect()
    }

    /// From `constexpr` on. What is no integer, or depends on a type, is passed over.
    fn constant(&mut self, template: Option<Vec<String>>, to: &mut Declarations) -> Result<(), Fault> {
        let place = &self.tokens[self.at].place;
        let statement = self.statement()?;
        let is_integer = statement.get(1).is_some_and(|ty| INTEGERS.iter().any(|integer| ty.is(integer)));
        let (Some(template), true) = (template, is_integer) else { return Ok(()) };
        if statement.get(3).is_some_and(|token| token.is("(")) {
            to.functions.push(function(place, statement)?);
            return Ok(());
        }
        for one in cut(&statement[2..]) {
            match one {
                [name, equals, value @ ..] if equals.is("=") && name.is_name() => to.constants.push(Constant {
                    name: name.text.to_string(),
                    place: name.place.clone(),
                    template: template.clone(),
                    value: value.to_vec(),
                }),
                _ => return Err(place.fault("cannot read this constant")),
            }
        }
        Ok(())
    }

    /// All up to a `;` or behind a body.
    fn statement(&mut self) -> Result<&'a [Token], Fault> {
        let first = self.at;
        while let Some(token) = self.peek() {
            if token.is(";") {
                self.at += 1;
                return Ok(&self.tokens[first..self.at - 1]);
            }
            let is_body = token.is("{");
            if OPEN.contains(&&*token.text) {
                self.group()?;
            } else {
                self.at += 1;
            }
            if is_body && !self.next_is(";") {
                break;
            }
        }
        Ok(&self.tokens[first..self.at])
    }

    /// From `struct` on. What depends on a type, or is one of several of that name, is passed over.
    fn structure(&mut self, template: Option<Vec<String>>) -> Result<Option<Struct>, Fault> {
        let place = &self.tokens[self.at].place;
        let statement = self.statement()?;
        let head = statement.iter().position(|token| token.is("{")).unwrap_or(0);
        let ([_, name], Some(template)) = (&statement[..head], template) else { return Ok(None) };
        let mut members = Reader { tokens: &statement[head + 1..statement.len() - 1], at: 0 };
        let (mut constants, mut aliases, mut data) = (Declarations::default(), Vec::new(), Vec::new());
        while let Some(token) = members.peek() {
            match &*token.text {
                "static" => {
                    members.at += 1;
                    if members.next_is("constexpr") {
                        members.constant(Some(Vec::new()), &mut constants)?;
                    }
                }
                "using" => {
                    if let [_, name, _, is @ ..] = members.statement()? {
                        aliases.push((name.text.to_string(), is.to_vec()));
                    }
                }
                _ => data.push(members.statement()?.to_vec()),
            }
        }
        let (name, constants) = (name.text.to_string(), constants.constants);
        Ok(Some(Struct { name, place: place.clone(), template, constants, aliases, data }))
    }

    /// `KERNEL(name, threads, parameters...) {}`.
    fn kernel(&mut self) -> Result<Kernel, Fault> {
        let word = &self.tokens[self.at];
        let fault = |what: &str| word.place.fault(format!("cannot read this {}: {what}", word.text));
        self.at += 1;
        let Some(list) = self.peek().filter(|token| token.is("(")) else {
            return Err(fault("it has no parentheses"));
        };
        let arguments = cut(self.group()?);
        let skipped = if word.is("KERNEL") { 2 } else { 3 };
        let (Some([name]), Some(threads), Some(parameters)) =
            (arguments.first(), arguments.get(1), arguments.get(skipped..))
        else {
            return Err(fault("it takes a name, threads a block, and the kernel's parameters"));
        };
        if !self.next_is("{") {
            return Err(fault("there is no body behind it"));
        }
        self.group()?;
        let parameters = parameters.iter().map(|tokens| {
            let text: Vec<&str> = tokens.iter().map(|token| &*token.text).collect();
            parameter(tokens).ok_or_else(|| fault(&format!("{}: the parameter {:?}", name.text, text.join(" "))))
        });
        let parameters = parameters.collect::<Result<_, _>>()?;
        Ok(Kernel { name: name.text.to_string(), place: list.place.clone(), threads: threads.to_vec(), parameters })
    }
}

fn function(place: &Place, statement: &[Token]) -> Result<Function, Fault> {
    let mut reader = Reader { tokens: statement, at: 3 };
    let parameters = cut(reader.group()?);
    let names = parameters.iter().map(|parameter| match parameter {
        [ty, name] if INTEGERS.iter().any(|integer| ty.is(integer)) => Some(name.text.to_string()),
        _ => None,
    });
    let names: Option<Vec<String>> = names.collect();
    let body = if reader.next_is("{") { reader.group()? } else { &[] };
    match (names, body) {
        (Some(parameters), [returns, value @ .., end]) if returns.is("return") && end.is(";") => Ok(Function {
            name: statement[2].text.to_string(),
            place: place.clone(),
            parameters,
            value: value.to_vec(),
        }),
        _ => Err(place.fault("cannot read this function: it may take integers and return one expression of them")),
    }
}

/// `const float* __restrict__ x`.
fn parameter(tokens: &[Token]) -> Option<Parameter> {
    let mut ty =
        Type { name: String::new(), is_pointer: false, is_const: false, is_nullable: false, is_in_place: false };
    let mut name = None;
    for token in tokens {
        match &*token.text {
            "const" if !ty.is_pointer => ty.is_const = true,
            "NULLABLE" if ty.name.is_empty() => ty.is_nullable = true,
            "__grid_constant__" if ty.name.is_empty() => ty.is_in_place = true,
            "__restrict__" if ty.is_pointer => {}
            "*" if !ty.name.is_empty() && !ty.is_pointer => ty.is_pointer = true,
            text if token.is_name() && ty.name.is_empty() => ty.name = text.to_owned(),
            text if token.is_name() && name.is_none() => name = Some(text.to_owned()),
            _ => return None,
        }
    }
    let is_sound = !ty.name.is_empty() && (ty.is_pointer || !ty.is_nullable);
    Some(Parameter { name: name.filter(|_| is_sound)?, ty })
}

/// The tokens between commas, of which those within brackets are none.
pub fn cut(tokens: &[Token]) -> Vec<&[Token]> {
    let mut depth = 0;
    let is_comma = |token: &Token| {
        depth += i32::from(OPEN.contains(&&*token.text)) - i32::from(CLOSED.contains(&&*token.text));
        depth == 0 && token.is(",")
    };
    tokens.split(is_comma).collect()
}
