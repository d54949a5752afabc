//! Integer expressions of constants: read, told in Rust, and, in a condition of the preprocessor, evaluated.

use super::Fault;
use super::tokens::{Place, Token};

/// What comes before what, of operators between two operands; C++ and Rust differ, so Rust gets parentheses.
const LEVELS: [&[&str]; 9] = [
    &["||"],
    &["&&"],
    &["|"],
    &["&"],
    &["==", "!="],
    &["<", ">", "<=", ">="],
    &["<<", ">>"],
    &["+", "-"],
    &["*", "/", "%"],
];
/// The first level within `<` and `>` of a template.
const SHIFTS: usize = 6;

#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    Integer(u64),
    /// `WARP`, `Shape<Head>::TILE`: each name with its template's arguments.
    Name(Vec<(String, Vec<Expression>)>),
    Call(String, Vec<Expression>),
    Not(Box<Expression>),
    Of(&'static str, Box<Expression>, Box<Expression>),
    If(Box<Expression>, Box<Expression>, Box<Expression>),
}

pub struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    is_template: &'a dyn Fn(&str) -> bool,
}

impl<'a> Parser<'a> {
    /// `is_template` tells `HELD<256>` from a comparison.
    pub fn new(tokens: &'a [Token], is_template: &'a dyn Fn(&str) -> bool) -> Self {
        Parser { tokens, at: 0, is_template }
    }

    /// All tokens as one expression.
    pub fn all(mut self, place: &Place) -> Result<Expression, Fault> {
        match self.conditional() {
            Some(expression) if self.at == self.tokens.len() => Ok(expression),
            _ => {
                let text: Vec<&str> = self.tokens.iter().map(|token| &*token.text).collect();
                Err(place.fault(format!("cannot read the integer {:?}", text.join(" "))))
            }
        }
    }

    fn next_is(&self, text: &str) -> bool {
        self.tokens.get(self.at).is_some_and(|token| token.is(text))
    }

    fn take(&mut self, text: &str) -> Option<()> {
        self.next_is(text).then(|| self.at += 1)
    }

    fn conditional(&mut self) -> Option<Expression> {
        let condition = self.level(0)?;
        if self.take("?").is_none() {
            return Some(condition);
        }
        let then = self.conditional()?;
        self.take(":")?;
        Some(Expression::If(condition.into(), then.into(), self.conditional()?.into()))
    }

    fn level(&mut self, level: usize) -> Option<Expression> {
        let Some(signs) = LEVELS.get(level) else { return self.operand() };
        let mut left = self.level(level + 1)?;
        while let Some(sign) = signs.iter().find(|sign| self.next_is(sign)) {
            self.at += 1;
            left = Expression::Of(sign, left.into(), self.level(level + 1)?.into());
        }
        Some(left)
    }

    fn operand(&mut self) -> Option<Expression> {
        if self.take("!").is_some() {
            return Some(Expression::Not(self.operand()?.into()));
        }
        if self.take("(").is_some() {
            let inner = self.conditional()?;
            return self.take(")").map(|()| inner);
        }
        let token = self.tokens.get(self.at)?;
        if !token.is_name() {
            self.at += 1;
            return integer(&token.text).map(Expression::Integer);
        }
        let mut names = Vec::new();
        loop {
            let name = self.tokens.get(self.at).filter(|token| token.is_name())?.text.to_string();
            self.at += 1;
            if self.next_is("(") && names.is_empty() {
                return self.call(name);
            }
            let is_template = self.next_is("<") && (self.is_template)(&name);
            let arguments = if is_template { self.list("<", ">", |parser| parser.level(SHIFTS))? } else { Vec::new() };
            names.push((name, arguments));
            if self.take("::").is_none() {
                return Some(Expression::Name(names));
            }
        }
    }

    fn call(&mut self, name: String) -> Option<Expression> {
        if name == "sizeof" {
            let size = size_of_type(&self.tokens.get(self.at + 1)?.text)?;
            self.at += 2;
            return self.take(")").map(|()| Expression::Integer(size));
        }
        let mut arguments = self.list("(", ")", Self::conditional)?;
        match name.as_str() {
            "int" | "i64" => arguments.pop().filter(|_| arguments.is_empty()),
            _ => Some(Expression::Call(name, arguments)),
        }
    }

    fn list(
        &mut self,
        open: &str,
        close: &str,
        one: impl Fn(&mut Self) -> Option<Expression>,
    ) -> Option<Vec<Expression>> {
        self.take(open)?;
        let mut list = vec![one(self)?];
        while self.take(",").is_some() {
            list.push(one(self)?);
        }
        self.take(close).map(|()| list)
    }
}

fn integer(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(['u', 'U', 'l', 'L']);
    match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => digits.parse().ok(),
    }
}

/// Bytes of a type that is none of the kernels' own structs.
pub fn size_of_type(name: &str) -> Option<u64> {
    Some(match name {
        "bf16" | "u16" => 2,
        "float" | "int" | "i32" | "u32" => 4,
        "double" | "i64" | "u64" => 8,
        _ => return None,
    })
}

impl Expression {
    /// Its value, where names have values.
    pub fn value(&self, name: &dyn Fn(&Expression) -> Option<i128>) -> Option<i128> {
        Some(match self {
            Expression::Integer(value) => i128::from(*value),
            Expression::Name(_) | Expression::Call(..) => name(self)?,
            Expression::Not(x) => i128::from(x.value(name)? == 0),
            Expression::If(condition, then, otherwise) => {
                if condition.value(name)? != 0 { then } else { otherwise }.value(name)?
            }
            Expression::Of(sign, left, right) => {
                let (left, right) = (left.value(name)?, right.value(name)?);
                match *sign {
                    "||" => i128::from(left != 0 || right != 0),
                    "&&" => i128::from(left != 0 && right != 0),
                    "==" => i128::from(left == right),
                    "!=" => i128::from(left != right),
                    "<" => i128::from(left < right),
                    ">" => i128::from(left > right),
                    "<=" => i128::from(left <= right),
                    ">=" => i128::from(left >= right),
                    "|" => left | right,
                    "&" => left & right,
                    "<<" => left.checked_shl(right.try_into().ok()?)?,
                    ">>" => left.checked_shr(right.try_into().ok()?)?,
                    "+" => left.checked_add(right)?,
                    "-" => left.checked_sub(right)?,
                    "*" => left.checked_mul(right)?,
                    "/" => left.checked_div(right)?,
                    "%" => left.checked_rem(right)?,
                    _ => return None,
                }
            }
        })
    }

    /// In Rust; `name` tells a name or a call, or nothing where it knows none such.
    pub fn rust(&self, name: &dyn Fn(&Expression) -> Option<String>) -> Option<String> {
        Some(match self {
            Expression::Integer(value) => value.to_string(),
            Expression::Name(_) | Expression::Call(..) => name(self)?,
            Expression::Not(x) => format!("(!{})", x.rust(name)?),
            Expression::Of(sign, left, right) => format!("({} {sign} {})", left.rust(name)?, right.rust(name)?),
            Expression::If(condition, then, otherwise) => {
                let [condition, then, otherwise] = [condition, then, otherwise].map(|x| x.rust(name));
                format!("(if {} {{ {} }} else {{ {} }})", condition?, then?, otherwise?)
            }
        })
    }
}
