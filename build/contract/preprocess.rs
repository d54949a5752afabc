//! The preprocessor of C, so that kernels which macros declare are read like all others: as nvcc would see them for no
//! architecture in particular, and with all instances.

use super::expression::{Expression, Parser};
use super::tokens::{Piece, Token};
use super::{Fault, Source};
use std::collections::HashMap;
use std::rc::Rc;

/// Macros that stand for themselves: the two that declare a kernel, and what they say of a parameter.
const KEPT: [&str; 3] = ["KERNEL", "KERNEL_MIN_BLOCKS", "NULLABLE"];

#[derive(Clone)]
struct Macro {
    /// Of one that takes arguments.
    parameters: Option<Vec<Rc<str>>>,
    body: Vec<Token>,
}

/// A file, its macros expanded.
pub struct Expanded {
    pub tokens: Vec<Token>,
    /// Files that it includes itself.
    pub includes: Vec<String>,
}

pub struct Preprocessor<'a> {
    sources: &'a HashMap<String, Source>,
    macros: HashMap<Rc<str>, Macro>,
    /// Files that have been read.
    seen: Vec<String>,
}

/// Expands a file. Of what it includes, it takes the macros.
pub fn expand(name: &str, sources: &HashMap<String, Source>) -> Result<Expanded, Fault> {
    let cuda = Macro { parameters: None, body: Vec::new() };
    let mut preprocessor =
        Preprocessor { sources, macros: HashMap::from([("__CUDACC__".into(), cuda)]), seen: Vec::new() };
    preprocessor.file(name)
}

impl Preprocessor<'_> {
    fn file(&mut self, name: &str) -> Result<Expanded, Fault> {
        let is_main = self.seen.is_empty();
        let mut expanded = Expanded { tokens: Vec::new(), includes: Vec::new() };
        if self.seen.iter().any(|seen| seen == name) {
            return Ok(expanded);
        }
        self.seen.push(name.to_owned());
        // Of each `#if` around here: whether its part is taken, and whether any of its parts has been.
        let mut conditions: Vec<(bool, bool)> = Vec::new();
        for piece in &self.sources[name].pieces {
            let is_taken = conditions.iter().all(|(taken, _)| *taken);
            match piece {
                Piece::Text(tokens) if is_taken && is_main => expanded.tokens.extend(self.expanded(tokens.clone())?),
                Piece::Text(_) => {}
                Piece::Directive(line) => {
                    let Some((name, rest)) = line.split_first() else { continue };
                    if self.condition(name, rest, &mut conditions)? || !is_taken {
                        continue;
                    }
                    expanded.includes.extend(self.directive(name, rest)?);
                }
            }
        }
        Ok(expanded)
    }

    /// Whether the line is one of a condition, which it then begins, goes on with or ends.
    fn condition(&self, name: &Token, rest: &[Token], conditions: &mut Vec<(bool, bool)>) -> Result<bool, Fault> {
        let is_defined = || rest.first().is_some_and(|name| self.macros.contains_key(&name.text));
        let is_reached = conditions.iter().all(|(taken, _)| *taken);
        let begun = match &*name.text {
            "ifdef" => is_defined(),
            "ifndef" => !is_defined(),
            // What is not reached need not make sense.
            "if" => is_reached && self.holds(name, rest)?,
            "elif" | "else" | "endif" => {
                let Some((_, any)) = conditions.pop() else {
                    return Err(name.place.fault(format!("#{} without #if", name.text)));
                };
                if !name.is("endif") {
                    let holds = !any && (name.is("else") || self.holds(name, rest)?);
                    conditions.push((holds, any || holds));
                }
                return Ok(true);
            }
            _ => return Ok(false),
        };
        conditions.push((begun, begun));
        Ok(true)
    }

    fn holds(&self, name: &Token, condition: &[Token]) -> Result<bool, Fault> {
        let mut tokens = Vec::new();
        let mut rest = condition.iter();
        while let Some(token) = rest.next() {
            let mut token = token.clone();
            if token.is("defined") {
                let (name, length) = match rest.as_slice() {
                    [open, name, close, ..] if open.is("(") && close.is(")") => (name, 3),
                    [name, ..] if name.is_name() => (name, 1),
                    _ => return Err(token.place.fault("defined what?")),
                };
                token.text = if self.macros.contains_key(&name.text) { "1" } else { "0" }.into();
                rest = rest.as_slice()[length..].iter();
            }
            tokens.push(token);
        }
        let tokens = self.expanded(tokens)?;
        let condition = Parser::new(&tokens, &|_| false).all(&name.place)?;
        // A name that is no macro is 0.
        condition.value(&|_: &Expression| Some(0)).map(|value| value != 0).ok_or_else(|| {
            name.place.fault("cannot tell whether this condition holds: only integers and their operators are read")
        })
    }

    /// A line that is no condition; the file that it includes.
    fn directive(&mut self, name: &Token, rest: &[Token]) -> Result<Option<String>, Fault> {
        match (&*name.text, rest) {
            ("define", [defined, rest @ ..]) => self.define(defined, rest)?,
            ("undef", [defined, ..]) => drop(self.macros.remove(&defined.text)),
            ("include", [path]) => {
                let path = path.text.trim_matches('"').to_owned();
                if !self.sources.contains_key(&path) {
                    return Err(name.place.fault(format!("kernels/ has no {path}")));
                }
                self.file(&path)?;
                return Ok(Some(path));
            }
            ("pragma" | "error", _) => {}
            _ => return Err(name.place.fault(format!("cannot read this #{}", name.text))),
        }
        Ok(None)
    }

    fn define(&mut self, name: &Token, rest: &[Token]) -> Result<(), Fault> {
        if KEPT.iter().any(|kept| name.is(kept)) {
            return Ok(());
        }
        let takes_arguments = rest.first().is_some_and(|token| token.is("(") && token.touches);
        let (parameters, body) = if takes_arguments {
            let end =
                rest.iter().position(|token| token.is(")")).ok_or_else(|| name.place.fault("no end of parameters"))?;
            let names = rest[1..end].iter().filter(|token| !token.is(","));
            let names = names.map(|token| if token.is("...") { "__VA_ARGS__".into() } else { token.text.clone() });
            (Some(names.collect()), &rest[end + 1..])
        } else {
            (None, rest)
        };
        self.macros.insert(name.text.clone(), Macro { parameters, body: body.to_vec() });
        Ok(())
    }

    fn expanded(&self, mut tokens: Vec<Token>) -> Result<Vec<Token>, Fault> {
        // The next one is the last.
        tokens.reverse();
        let mut out = Vec::new();
        while let Some(token) = tokens.pop() {
            let definition = self.macros.get(&token.text).filter(|_| !token.from.contains(&token.text));
            let body = match definition {
                None => None,
                Some(Macro { parameters: None, body }) => Some(body.clone()),
                Some(Macro { parameters: Some(_), .. }) if !tokens.last().is_some_and(|next| next.is("(")) => None,
                Some(Macro { parameters: Some(parameters), body }) => {
                    let arguments = arguments(&token, &mut tokens)?;
                    Some(self.filled_in(&token, parameters, body, arguments)?)
                }
            };
            match body {
                None => out.push(token),
                Some(body) => tokens.extend(body.into_iter().rev().map(|mut of_body| {
                    of_body.from.extend(token.from.iter().cloned().chain([token.text.clone()]));
                    of_body
                })),
            }
        }
        Ok(out)
    }

    /// A macro's body with its arguments in the parameters' places, and what `##` joins as one.
    fn filled_in(
        &self,
        name: &Token,
        parameters: &[Rc<str>],
        body: &[Token],
        mut arguments: Vec<Vec<Token>>,
    ) -> Result<Vec<Token>, Fault> {
        if parameters.last().is_some_and(|last| &**last == "__VA_ARGS__") && arguments.len() + 1 >= parameters.len() {
            let rest = arguments.split_off(parameters.len() - 1);
            let comma = Token { text: ",".into(), ..name.clone() };
            arguments.push(rest.join(&comma));
        }
        if arguments.len() != parameters.len() {
            let (given, wanted) = (arguments.len(), parameters.len());
            return Err(name.place.fault(format!("{} takes {wanted} arguments, not {given}", name.text)));
        }
        let mut out: Vec<Token> = Vec::new();
        let mut joins = false;
        for (i, token) in body.iter().enumerate() {
            if token.is("##") {
                joins = true;
                continue;
            }
            let is_joined = joins || body.get(i + 1).is_some_and(|next| next.is("##"));
            let mut tokens = match parameters.iter().position(|parameter| *parameter == token.text) {
                None => vec![token.clone()],
                Some(at) if is_joined => arguments[at].clone(),
                Some(at) => self.expanded(arguments[at].clone())?,
            };
            if std::mem::take(&mut joins) && !tokens.is_empty() && !out.is_empty() {
                let (left, right) = (out.last_mut().expect("it is not empty"), tokens.remove(0));
                left.text = format!("{}{}", left.text, right.text).into();
            }
            out.extend(tokens);
        }
        Ok(out)
    }
}

/// What stands in the parentheses that come next, cut at its commas. The next token is the last.
fn arguments(name: &Token, tokens: &mut Vec<Token>) -> Result<Vec<Vec<Token>>, Fault> {
    tokens.pop();
    let (mut arguments, mut depth) = (vec![Vec::new()], 0);
    while let Some(token) = tokens.pop() {
        match &*token.text {
            ")" if depth == 0 => return Ok(arguments),
            "," if depth == 0 => {
                arguments.push(Vec::new());
                continue;
            }
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        arguments.last_mut().expect("there is one").push(token);
    }
    Err(name.place.fault(format!("the arguments of {} have no end", name.text)))
}
