//! Document paths: `a.b[3].c`.

use super::error::ExpressionError;
use crate::limits::{ATTRIBUTE_NAME_BYTES_MAX, NESTING_LEVELS_MAX};
use rkyv::{Archive, Serialize};
use std::fmt;

/// Names a place in an item: a top-level attribute, then steps into maps and lists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize)]
#[rkyv(derive(Debug))]
pub struct Path {
    /// The top-level attribute.
    pub root: String,
    /// Where to go from there.
    pub steps: Vec<Step>,
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize)]
#[rkyv(derive(Debug))]
pub enum Step {
    /// To the attribute of a map.
    Field(String),
    /// To the element of a list, counted from zero.
    Index(u32),
}

/// A step looked at, owned or archived alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepView<'a> {
    /// To an attribute.
    Field(&'a str),
    /// To an element.
    Index(usize),
}

/// How two places are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// Changing one leaves the other alone.
    Apart,
    /// They are one, or one is inside the other.
    Overlap,
    /// One takes for a map what the other takes for a list.
    Conflict,
}

impl Path {
    /// The path to a top-level attribute.
    #[must_use]
    pub fn new(root: impl Into<String>) -> Self {
        Self { root: root.into(), steps: Vec::new() }
    }

    /// The path to an attribute of the map at this path.
    #[must_use]
    pub fn field(mut self, name: impl Into<String>) -> Self {
        self.steps.push(Step::Field(name.into()));
        self
    }

    /// The path to an element of the list at this path.
    #[must_use]
    pub fn index(mut self, index: u32) -> Self {
        self.steps.push(Step::Index(index));
        self
    }

    /// The root as a field, then the steps.
    pub fn views(&self) -> impl Iterator<Item = StepView<'_>> {
        let steps = self.steps.iter().map(|step| match step {
            Step::Field(name) => StepView::Field(name),
            Step::Index(index) => StepView::Index(*index as usize),
        });
        std::iter::once(StepView::Field(&self.root)).chain(steps)
    }
}

impl ArchivedPath {
    /// The root as a field, then the steps.
    pub fn views(&self) -> impl Iterator<Item = StepView<'_>> {
        let steps = self.steps.iter().map(|step| match step {
            ArchivedStep::Field(name) => StepView::Field(name.as_str()),
            ArchivedStep::Index(index) => StepView::Index(index.to_native() as usize),
        });
        std::iter::once(StepView::Field(self.root.as_str())).chain(steps)
    }

    /// A copy that owns its parts.
    #[must_use]
    pub fn to_path(&self) -> Path {
        let steps = self.steps.iter().map(|step| match step {
            ArchivedStep::Field(name) => Step::Field(name.as_str().to_owned()),
            ArchivedStep::Index(index) => Step::Index(index.to_native()),
        });
        Path { root: self.root.as_str().to_owned(), steps: steps.collect() }
    }
}

/// Checks the names and the number of steps: a path that is deeper than any item leads nowhere.
pub(super) fn check_path<'a, I>(views: impl Fn() -> I) -> Result<(), ExpressionError>
where
    I: Iterator<Item = StepView<'a>>,
{
    if views().nth(NESTING_LEVELS_MAX).is_some() {
        let path = text_of(views().take(NESTING_LEVELS_MAX));
        return Err(ExpressionError::PathTooDeep { path, levels_max: NESTING_LEVELS_MAX });
    }
    for view in views() {
        if let StepView::Field(name) = view
            && (name.is_empty() || name.len() > ATTRIBUTE_NAME_BYTES_MAX)
        {
            return Err(ExpressionError::PathName { bytes: name.len(), bytes_max: ATTRIBUTE_NAME_BYTES_MAX });
        }
    }
    Ok(())
}

/// How the places of two paths are to each other.
pub(super) fn relation<'a>(
    left: impl Iterator<Item = StepView<'a>>,
    mut right: impl Iterator<Item = StepView<'a>>,
) -> Relation {
    for left in left {
        match (left, right.next()) {
            (_, None) => return Relation::Overlap,
            (left, Some(right)) if left == right => {}
            (StepView::Field(_), Some(StepView::Field(_)))
            | (StepView::Index(_), Some(StepView::Index(_))) => {
                return Relation::Apart;
            }
            (StepView::Field(_), Some(StepView::Index(_)))
            | (StepView::Index(_), Some(StepView::Field(_))) => {
                return Relation::Conflict;
            }
        }
    }
    Relation::Overlap
}

fn text_of<'a>(views: impl Iterator<Item = StepView<'a>>) -> String {
    let mut text = String::new();
    for view in views {
        match view {
            StepView::Field(name) if text.is_empty() => text.push_str(name),
            StepView::Field(name) => {
                text.push('.');
                text.push_str(name);
            }
            StepView::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text_of(self.views()))
    }
}

impl fmt::Display for ArchivedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text_of(self.views()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(left: &Path, right: &Path, expected: Relation) {
        assert_eq!(relation(left.views(), right.views()), expected, "{left} {right}");
        assert_eq!(relation(right.views(), left.views()), expected, "{right} {left}");
    }

    #[test]
    fn places_overlap_when_one_is_in_the_other() {
        let a = || Path::new("a");
        check(&a(), &a(), Relation::Overlap);
        check(&a(), &a().field("b").index(1), Relation::Overlap);
        check(&a().index(1), &a().index(1).index(0), Relation::Overlap);
        check(&a(), &Path::new("b"), Relation::Apart);
        check(&a().field("b"), &a().field("c"), Relation::Apart);
        check(&a().index(0).field("x"), &a().index(1).field("x"), Relation::Apart);
        check(&a().field("b"), &a().index(1), Relation::Conflict);
        check(&a().field("b").field("c"), &a().field("b").index(2), Relation::Conflict);
        check(&a().field("b").index(0), &a().field("c").field("d"), Relation::Apart);
    }

    #[test]
    fn a_path_is_written_as_it_is_read() {
        assert_eq!(Path::new("a").field("b").index(3).index(0).field("c").to_string(), "a.b[3][0].c");
    }

    #[test]
    fn a_path_has_at_most_as_many_levels_as_an_item() {
        let deep = |levels| (1..levels).fold(Path::new("a"), |path, _| path.index(0));
        let (allowed, refused) = (deep(32), deep(33));
        assert_eq!(check_path(|| allowed.views()), Ok(()));
        let Err(ExpressionError::PathTooDeep { path, levels_max: 32 }) = check_path(|| refused.views())
        else {
            panic!("33 levels passed");
        };
        assert_eq!(path, allowed.to_string());
        let empty = Path::new("a").field("");
        assert!(matches!(check_path(|| empty.views()), Err(ExpressionError::PathName { bytes: 0, .. })));
    }
}
