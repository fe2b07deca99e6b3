//! Which devices are meant: `site=plant-3 and board in (rpi4, jetson) and not label.pinned`.
//!
//! Decides what an expression says and which devices it is true of. Facts come first: a name that is no fact is a label,
//! and `label.` before it says so. What a device does not have is neither equal nor greater than anything. Does not know
//! who asks, nor what for.

use crate::Device;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest expression in bytes.
const MAX_BYTES: usize = 4_096;
/// How deep parentheses and `not` may be in each other.
const MAX_DEPTH: usize = 64;
/// What is known of every device.
pub const FACTS: [&str; 9] = ["id", "board", "arch", "cores", "ram_mb", "models_mb", "metered", "online", "agent"];

/// An expression over facts and labels, as it was written and as it is understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target {
    text: String,
    meaning: Expr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expr {
    All,
    Has(Name),
    Is(Name, Comparison, String),
    In(Name, Vec<String>),
    Not(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Fact(&'static str),
    Label(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

/// Why an expression is none, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetError {
    text: String,
    at: usize,
    what: String,
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = self.text.get(..self.at).map_or(0, |before| before.chars().count());
        write!(f, "{}\n  {}\n  {}^", self.what, self.text, " ".repeat(before))
    }
}

impl std::error::Error for TargetError {}

impl Target {
    /// Whether it is true of this device.
    pub fn holds(&self, device: &Device) -> bool {
        self.meaning.holds(device)
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let text = text.trim();
        let fault = |at: usize, what: &str| TargetError { text: text.to_owned(), at, what: what.to_owned() };
        if text.len() > MAX_BYTES {
            return Err(TargetError { text: String::new(), at: 0, what: format!("longer than {MAX_BYTES} bytes") });
        }
        if let Some((at, _)) = text.char_indices().find(|(_, c)| c.is_control()) {
            return Err(TargetError {
                text: text.replace(char::is_control, " "),
                at,
                what: "a control character".into(),
            });
        }
        let mut parser = Parser { words: words(text)?, at: 0, text, depth: 0 };
        let meaning = parser.or()?;
        match parser.words.get(parser.at) {
            None => Ok(Self { text: text.to_owned(), meaning }),
            Some((at, _)) => Err(fault(*at, "`and`, `or` or the end was expected here")),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = TargetError;
    fn try_from(text: String) -> Result<Self, TargetError> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> String {
        target.text
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Expr {
    fn holds(&self, device: &Device) -> bool {
        match self {
            Expr::All => true,
            Expr::Has(name) => match name.of(device).as_deref() {
                None | Some("false") => false,
                Some(_) => true,
            },
            Expr::Is(name, comparison, value) => match name.of(device) {
                Some(has) => comparison.holds(&has, value),
                None => *comparison == Comparison::Unequal,
            },
            Expr::In(name, values) => name.of(device).is_some_and(|has| values.contains(&has)),
            Expr::Not(inner) => !inner.holds(device),
            Expr::And(a, b) => a.holds(device) && b.holds(device),
            Expr::Or(a, b) => a.holds(device) || b.holds(device),
        }
    }
}

impl Name {
    fn of(&self, device: &Device) -> Option<String> {
        let profile = &device.profile;
        match self {
            Name::Label(key) => device.labels.get(key).cloned(),
            Name::Fact(fact) => Some(match *fact {
                "id" => device.id.to_string(),
                "board" => profile.board.clone(),
                "arch" => profile.arch.clone(),
                "cores" => profile.cores.to_string(),
                "ram_mb" => profile.ram_mb.to_string(),
                "models_mb" => profile.models_mb.to_string(),
                "metered" => profile.metered.to_string(),
                "online" => device.online.to_string(),
                _ => profile.agent.clone(),
            }),
        }
    }
}

impl Comparison {
    /// Numbers by their value, versions part by part, words by their letters.
    fn holds(self, has: &str, value: &str) -> bool {
        let parts = |text: &str| text.split('.').map(|part| part.parse::<u64>().ok()).collect::<Option<Vec<_>>>();
        let order = match (parts(has), parts(value)) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => has.cmp(value),
        };
        match self {
            Comparison::Equal => has == value || (order.is_eq() && parts(has).is_some()),
            Comparison::Unequal => !Comparison::Equal.holds(has, value),
            Comparison::Less => order.is_lt(),
            Comparison::AtMost => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::AtLeast => order.is_ge(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Plain(String),
    Quoted(String),
    Sign(&'static str),
}

/// The words of an expression, each with where it begins.
fn words(text: &str) -> Result<Vec<(usize, Word)>, TargetError> {
    const SIGNS: [&str; 9] = ["!=", "<=", ">=", "=", "<", ">", "(", ")", ","];
    let fault = |at: usize, what: String| TargetError { text: text.to_owned(), at, what };
    let is_plain = |c: char| c.is_alphanumeric() || "-_.:/+@".contains(c);
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        if first.is_whitespace() {
            at += first.len_utf8();
        } else if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            words.push((at, Word::Sign(sign)));
            at += sign.len();
        } else if first == '"' || first == '\'' {
            let inner = &rest[1..];
            let end = inner.find(first).ok_or_else(|| fault(at, "this quotation has no end".into()))?;
            words.push((at, Word::Quoted(inner[..end].to_owned())));
            at += end + 2;
        } else {
            let end = rest.find(|c| !is_plain(c)).unwrap_or(rest.len());
            if end == 0 {
                return Err(fault(at, format!("`{first}` means nothing here; put values that hold it in quotes")));
            }
            words.push((at, Word::Plain(rest[..end].to_owned())));
            at += end;
        }
    }
    Ok(words)
}

struct Parser<'a> {
    words: Vec<(usize, Word)>,
    at: usize,
    text: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn fault<T>(&self, what: impl Into<String>) -> Result<T, TargetError> {
        let at = self.words.get(self.at).map_or(self.text.len(), |(at, _)| *at);
        Err(TargetError { text: self.text.to_owned(), at, what: what.into() })
    }

    /// Takes the next word when it is this one.
    fn takes(&mut self, word: &str) -> bool {
        let is = match self.words.get(self.at) {
            Some((_, Word::Plain(plain))) => plain == word,
            Some((_, Word::Sign(sign))) => *sign == word,
            Some((_, Word::Quoted(_))) | None => false,
        };
        self.at += usize::from(is);
        is
    }

    fn or(&mut self) -> Result<Expr, TargetError> {
        let mut left = self.and()?;
        while self.takes("or") {
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr, TargetError> {
        let mut left = self.not()?;
        while self.takes("and") {
            left = Expr::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr, TargetError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fault(format!("more than {MAX_DEPTH} parentheses in each other"));
        }
        let inner = if self.takes("not") {
            Expr::Not(Box::new(self.not()?))
        } else if self.takes("(") {
            let inner = self.or()?;
            if !self.takes(")") {
                return self.fault("`)` was expected here");
            }
            inner
        } else {
            self.term()?
        };
        self.depth -= 1;
        Ok(inner)
    }

    fn term(&mut self) -> Result<Expr, TargetError> {
        if self.takes("all") {
            return Ok(Expr::All);
        }
        let name = match self.words.get(self.at) {
            Some((_, Word::Plain(word))) if !["and", "or", "in"].contains(&word.as_str()) => name(word),
            _ => return self.fault("a fact or a label was expected here, such as `board` or `site`"),
        };
        self.at += 1;
        if self.takes("in") {
            if !self.takes("(") {
                return self.fault("`(` was expected here: board in (rpi4, rpi5)");
            }
            let mut values = vec![self.value()?];
            while self.takes(",") {
                values.push(self.value()?);
            }
            return if self.takes(")") {
                Ok(Expr::In(name, values))
            } else {
                self.fault("`,` or `)` was expected here")
            };
        }
        let comparisons = [
            ("=", Comparison::Equal),
            ("!=", Comparison::Unequal),
            ("<=", Comparison::AtMost),
            (">=", Comparison::AtLeast),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        for (sign, comparison) in comparisons {
            if self.takes(sign) {
                return Ok(Expr::Is(name, comparison, self.value()?));
            }
        }
        Ok(Expr::Has(name))
    }

    fn value(&mut self) -> Result<String, TargetError> {
        match self.words.get(self.at) {
            Some((_, Word::Plain(value) | Word::Quoted(value))) => {
                self.at += 1;
                Ok(value.clone())
            }
            Some((_, Word::Sign(_))) | None => self.fault("a value was expected here"),
        }
    }
}

fn name(word: &str) -> Name {
    match (word.strip_prefix("label."), FACTS.into_iter().find(|fact| *fact == word)) {
        (Some(label), _) => Name::Label(label.to_owned()),
        (None, Some(fact)) => Name::Fact(fact),
        (None, None) => Name::Label(word.to_owned()),
    }
}
