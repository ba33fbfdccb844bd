//! Named points where a test can make this process die, stop, hang or wait. Debug builds only.
//!
//! The environment variable `BATON_FAULT_FILE` names a file with one order in it. It is read at every
//! point, so a test decides between two reloads what shall happen in the next one. Without the
//! variable, and in a release build, a point does nothing.
//!
//! ```text
//! point:action      at every passing, in every process
//! point:action:N    at the N-th passing of one process; then the order is used up
//! ```
//! Instead of a used-up order there is `FILE.fired` with the number of the process that obeys it. The
//! actions are in [`Action`]. `docs/FAULT_POINTS.md` lists the points; `tests/tidy.rs` compares.

#[cfg(debug_assertions)]
mod orders;

/// Does what the test asked for at this point.
pub fn point(name: &str) {
    #[cfg(debug_assertions)]
    orders::obey(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

/// The point `group.name`, for a step whose names are listed elsewhere, such as a message.
pub fn point_of(group: &str, name: &str) {
    #[cfg(debug_assertions)]
    orders::obey(&format!("{group}.{name}"));
    #[cfg(not(debug_assertions))]
    let _ = (group, name);
}

/// What can happen at a point.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// `kill`: SIGKILL to this process.
    Kill,
    /// `stop`: SIGSTOP to this process, all its threads.
    Stop,
    /// `panic`: a panic of this thread.
    Panic,
    /// `hang`: this thread never goes on.
    Hang,
    /// `spin`: the same, and it uses a processor for it.
    Spin,
    /// `wait`: this thread tells the test that it is here, then waits until the test says go on.
    ///
    /// Both happen through named pipes made by the test: the process writes its number and a newline
    /// into `FILE.here`, then reads `FILE.go` until its end.
    Wait,
}

impl Action {
    /// Reads the name of an action.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Kill, Self::Stop, Self::Panic, Self::Hang, Self::Spin, Self::Wait]
            .into_iter()
            .find(|action| action.name() == name)
    }

    /// The name in an order.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Panic => "panic",
            Self::Hang => "hang",
            Self::Spin => "spin",
            Self::Wait => "wait",
        }
    }
}

/// What a test asks for: the content of the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Order<'a> {
    /// Where.
    pub point: &'a str,
    /// What.
    pub action: Action,
    /// At which passing, from 1; `None` = at each.
    pub passing: Option<u64>,
}

impl<'a> Order<'a> {
    /// Reads `point:action` or `point:action:N`; anything else is no order.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.trim().split(':');
        let (point, action) = (parts.next()?, Action::parse(parts.next()?)?);
        let passing = match parts.next() {
            Some(number) => Some(number.parse().ok().filter(|number| *number > 0)?),
            None => None,
        };
        (!point.is_empty() && parts.next().is_none()).then_some(Self { point, action, passing })
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Order};

    fn check(text: &str, expected: Option<Order<'_>>) {
        assert_eq!(Order::parse(text), expected, "{text}");
    }

    #[test]
    fn an_order_has_a_point_an_action_and_perhaps_a_passing() {
        let order = |action, passing| Some(Order { point: "ready", action, passing });
        check("ready:kill", order(Action::Kill, None));
        check("ready:stop:1\n", order(Action::Stop, Some(1)));
        check("ready:wait:20", order(Action::Wait, Some(20)));
        for text in ["", "ready", "ready:", "ready:explode", "ready:kill:0", "ready:kill:x"] {
            check(text, None);
        }
        check("ready:kill:1:2", None);
        check(":kill", None);
    }
}
