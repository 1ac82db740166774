//! Where a document path leads in an item.

use evenkeel_wire::expression::StepView;
use evenkeel_wire::item::view::{MapView, ValueView};

/// What is at a path, if anything is.
pub(super) fn value_at<'item, 'path>(
    item: MapView<'item>,
    mut path: impl Iterator<Item = StepView<'path>>,
) -> Option<ValueView<'item>> {
    let mut value = match path.next()? {
        StepView::Field(root) => item.get(root)?,
        StepView::Index(_) => return None,
    };
    for step in path {
        value = step_into(value, step)?;
    }
    Some(value)
}

/// What is one step further, if the step fits the value and something is there.
fn step_into<'item>(value: ValueView<'item>, step: StepView<'_>) -> Option<ValueView<'item>> {
    match (value, step) {
        (ValueView::M(map), StepView::Field(name)) => map.get(name),
        (ValueView::L(list), StepView::Index(index)) => list.get(index),
        _ => None,
    }
}

/// Whether something could be put at a path: what holds it is there, and is a map or a list as the last step
/// needs.
pub(super) fn has_room(item: MapView<'_>, path: &[StepView<'_>]) -> bool {
    match path.split_last() {
        None | Some((_, [])) => true,
        Some((last, holder)) => match (value_at(item, holder.iter().copied()), last) {
            (Some(ValueView::M(_)), StepView::Field(_)) | (Some(ValueView::L(_)), StepView::Index(_)) => true,
            (Some(_) | None, StepView::Field(_) | StepView::Index(_)) => false,
        },
    }
}
