//! What a generation accepted beside its configuration, and who begins with it.

use baton_contract::{
    control::Reload,
    generation::Generation,
    message::{Hello, RESOURCES_FEATURE},
    version::ProtoRange,
};
use baton_supervisor::state::{
    Policy,
    action::Action,
    event::{ConfigId, Death, Event, ResourcesId},
};

use super::{Bench, G0, G1, G2, hello};

impl Bench {
    fn accepts(&mut self, generation: Generation, number: u64) {
        self.step(Event::Resources { generation, resources: ResourcesId(number) });
    }

    /// What a new worker gets with WELCOME.
    fn given(&mut self, generation: Generation, features: &[&str]) -> Option<ResourcesId> {
        if self.last.contains(&Action::ReadConfig) {
            self.step(Event::ConfigRead(Ok(ConfigId(9))));
        }
        self.step(Event::Spawned { generation, pid: 100 });
        let features = features.iter().map(|&name| name.to_owned()).collect();
        self.say(generation, Hello { features, ..hello(ProtoRange::ours()) });
        let given = self.last.iter().find_map(|action| match action {
            Action::Welcome { resources, .. } => Some(*resources),
            _ => None,
        });
        given.expect("WELCOME")
    }

    fn reload_given(&mut self, generation: Generation, features: &[&str]) -> Option<ResourcesId> {
        self.step(Event::Reload { waiter: None, reload: Reload::default() });
        self.given(generation, features)
    }
}

#[test]
fn a_new_generation_gets_the_newest_of_the_one_that_serves_if_it_understands_it() {
    let mut bench = Bench::serving(Policy::default(), &[1]);
    bench.accepts(G0, 1);
    bench.accepts(G0, 2);
    assert_eq!(bench.reload_given(G1, &[]), None, "an older program");
    assert_eq!(
        bench.core.resources_in_use(),
        [ResourcesId(2)].into(),
        "the one before is not kept"
    );
    let mut bench = Bench::serving(Policy::default(), &[1]);
    bench.accepts(G0, 2);
    assert_eq!(bench.reload_given(G1, &[RESOURCES_FEATURE]), Some(ResourcesId(2)));
}

#[test]
fn a_respawn_gets_what_the_dead_generation_said_last() {
    let mut bench = Bench::serving(Policy::default(), &[1]);
    bench.accepts(G0, 5);
    bench.step(Event::Exited { generation: G0, how: Death::Killed(9) });
    bench.step(Event::Tick);
    assert_eq!(bench.core.resources_in_use(), [ResourcesId(5)].into());
    assert_eq!(bench.given(G1, &[RESOURCES_FEATURE]), Some(ResourcesId(5)));
}

#[test]
fn a_generation_that_resumes_has_its_own() {
    let mut bench = Bench::serving(Policy::default(), &[1]);
    bench.accepts(G0, 1);
    bench.reload(G0, G1, 1, &[1]);
    bench.accepts(G1, 2);
    assert_eq!(bench.core.resources_in_use(), [ResourcesId(1), ResourcesId(2)].into());
    bench.step(Event::Exited { generation: G1, how: Death::Killed(9) });
    assert_eq!(bench.core.serving(), Some(G0));
    assert_eq!(bench.reload_given(G2, &[RESOURCES_FEATURE]), Some(ResourcesId(1)));
}
