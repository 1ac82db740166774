//! Text to tokens.
//!
//! ```text
//!   word      letter { letter, digit or _ }            keywords, functions, attribute names
//!   name      # { letter, digit or _ }, one at least   placeholder of an attribute name
//!   value     : { letter, digit or _ }, one at least   placeholder of a value
//!   integer   digit { digit }                          index of a list
//!   symbol    ( ) [ ] , . = <> < <= > >= + -
//! ```
//!
//! Letters and digits are ASCII. Space, tab and line ends separate tokens and mean nothing else.

use super::Fault;
use super::error::ParseProblem;
use std::fmt;

/// One token. It borrows from the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A word.
    Word(&'a str),
    /// A placeholder of a name, with its `#`.
    Name(&'a str),
    /// A placeholder of a value, with its `:`.
    Value(&'a str),
    /// Digits.
    Integer(&'a str),
    /// Anything of the grammar that is not made of letters and digits.
    Symbol(Symbol),
    /// The end of the text.
    End,
}

/// A token without content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Symbol {
    Open,
    Close,
    OpenBracket,
    CloseBracket,
    Comma,
    Dot,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Plus,
    Minus,
}

impl Symbol {
    /// Every symbol; one that another begins with comes after it.
    const ALL: [Self; 14] = [
        Self::Open,
        Self::Close,
        Self::OpenBracket,
        Self::CloseBracket,
        Self::Comma,
        Self::Dot,
        Self::Equal,
        Self::NotEqual,
        Self::LessOrEqual,
        Self::Less,
        Self::GreaterOrEqual,
        Self::Greater,
        Self::Plus,
        Self::Minus,
    ];

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Open => "(",
            Self::Close => ")",
            Self::OpenBracket => "[",
            Self::CloseBracket => "]",
            Self::Comma => ",",
            Self::Dot => ".",
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Plus => "+",
            Self::Minus => "-",
        }
    }
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(text) | Self::Name(text) | Self::Value(text) | Self::Integer(text) => {
                write!(f, "\"{text}\"")
            }
            Self::Symbol(symbol) => write!(f, "\"{}\"", symbol.text()),
            Self::End => f.write_str("the end"),
        }
    }
}

/// The tokens of a text, each with the offset at which it begins.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token<'_>)>, Fault> {
    let mut tokens = Vec::new();
    let mut position = 0;
    while let Some(first) = text[position..].chars().next() {
        if matches!(first, ' ' | '\t' | '\r' | '\n') {
            position += 1;
            continue;
        }
        let Some((token, length)) = token(&text[position..], first) else {
            return Err((position, ParseProblem::Character { found: first }));
        };
        tokens.push((position, token));
        position += length;
    }
    Ok(tokens)
}

/// The token that `rest` begins with, and its length in bytes, none of which is part of a longer character.
fn token(rest: &str, first: char) -> Option<(Token<'_>, usize)> {
    let run = |start: usize, of: fn(&u8) -> bool| {
        start + rest.as_bytes()[start..].iter().take_while(|byte| of(byte)).count()
    };
    let is_word_byte = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    match first {
        'a'..='z' | 'A'..='Z' => {
            let length = run(0, is_word_byte);
            Some((Token::Word(&rest[..length]), length))
        }
        '0'..='9' => {
            let length = run(0, u8::is_ascii_digit);
            Some((Token::Integer(&rest[..length]), length))
        }
        '#' | ':' => {
            let length = run(1, is_word_byte);
            let text = &rest[..length];
            match first {
                _ if length == 1 => None,
                '#' => Some((Token::Name(text), length)),
                _ => Some((Token::Value(text), length)),
            }
        }
        _ => {
            let symbol = Symbol::ALL.into_iter().find(|symbol| rest.starts_with(symbol.text()))?;
            Some((Token::Symbol(symbol), symbol.text().len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_found_with_its_place() {
        let text = "a_1 #2 :v[0]<=>=<><>.(,)+-=";
        let found: Vec<_> =
            tokens(text).expect("tokens").into_iter().map(|(at, token)| (at, token.to_string())).collect();
        let expected = [
            (0, "a_1"),
            (4, "#2"),
            (7, ":v"),
            (9, "["),
            (10, "0"),
            (11, "]"),
            (12, "<="),
            (14, ">="),
            (16, "<>"),
            (18, "<>"),
            (20, "."),
            (21, "("),
            (22, ","),
            (23, ")"),
            (24, "+"),
            (25, "-"),
            (26, "="),
        ];
        assert_eq!(found, expected.map(|(at, text)| (at, format!("\"{text}\""))));
    }

    #[test]
    fn what_is_no_token_is_refused_where_it_stands() {
        for (text, position, character) in [
            ("a # b", 2, '#'),
            (":", 0, ':'),
            ("_a", 0, '_'),
            ("a = 'x'", 4, '\''),
            ("h\u{e9}", 1, '\u{e9}'),
            ("a;", 1, ';'),
        ] {
            assert_eq!(tokens(text), Err((position, ParseProblem::Character { found: character })), "{text}");
        }
    }
}
