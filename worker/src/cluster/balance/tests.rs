//! Proportions and edge cases of the balancers.

use std::{net::SocketAddr, sync::atomic::Ordering::Relaxed};

use proptest::prelude::*;

use super::*;
use crate::cluster::endpoint::{EndpointAddress, EndpointInfo};

fn set_with(weights: &[u32], priorities: &[u32], version: u64) -> EndpointSet {
    let endpoints = weights.iter().zip(priorities).enumerate().map(|(at, (weight, priority))| {
        let port = u16::try_from(at + 1).unwrap();
        let info = EndpointInfo { weight: *weight, priority: *priority, ..EndpointInfo::default() };
        let address = EndpointAddress::Ip(SocketAddr::from(([127, 0, 0, 1], port)));
        Arc::new(Endpoint::new(address, info))
    });
    EndpointSet::new(endpoints.collect(), version)
}

fn set(weights: &[u32]) -> EndpointSet {
    set_with(weights, &vec![0; weights.len()], 1)
}

/// How often each endpoint was picked.
fn count(picker: &mut Picker, set: &EndpointSet, picks: usize) -> Vec<u32> {
    let mut counts = vec![0; set.endpoints.len()];
    for _ in 0..picks {
        let picked = picker.pick(set).expect("the set is not empty");
        let at = set.endpoints.iter().position(|e| e.id == picked.id).unwrap();
        counts[at] += 1;
    }
    counts
}

const POLICIES: [Balancer; 3] = [Balancer::RoundRobin, Balancer::LeastRequest(2), Balancer::Random];

#[test]
fn an_empty_set_gives_nothing_and_a_single_endpoint_always_itself() {
    for policy in POLICIES {
        let mut picker = Picker::new(policy, 1);
        assert!(picker.pick(&EndpointSet::default()).is_none());
        assert!(picker.pick_with(&EndpointSet::default(), &search(&[1])).is_none());
        assert_eq!(count(&mut picker, &set(&[7]), 5), [5]);
    }
}

#[test]
fn only_the_best_priority_present_gets_traffic() {
    for policy in POLICIES {
        let set = set_with(&[1, 1, 1, 1], &[2, 1, 2, 1], 1);
        assert_eq!(set.active().len(), 2);
        let counts = count(&mut Picker::new(policy, 3), &set, 100);
        assert_eq!(counts[0] + counts[1], 100, "{policy:?}");
    }
}

#[test]
fn weighted_round_robin_spreads_the_turns_of_the_heavy_one() {
    let set = set(&[5, 1, 1]);
    let mut picker = Picker::new(Balancer::RoundRobin, 1);
    let mut longest = 0;
    let mut run = 0;
    for _ in 0..700 {
        let heavy = picker.pick(&set).unwrap().info.weight == 5;
        run = if heavy { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    assert!(longest <= 5, "{longest} in a row");
}

#[test]
fn least_request_prefers_the_idle_endpoint() {
    for weights in [[1, 1], [2, 1]] {
        let set = set(&weights);
        set.endpoints[0].stats.rq_active.store(50, Relaxed);
        let counts = count(&mut Picker::new(Balancer::LeastRequest(2), 9), &set, 1000);
        assert!(counts[1] > 700, "{counts:?}");
    }
}

#[test]
fn least_request_with_weights_follows_them_when_all_are_idle() {
    let counts = count(&mut Picker::new(Balancer::LeastRequest(2), 9), &set(&[3, 1]), 4000);
    assert!((2990..=3010).contains(&counts[0]), "{counts:?}");
}

fn search(tried: &[u64]) -> PickContext<'_> {
    PickContext { tried, further: Further::Search }
}

/// Envoy's formula for a chance of 1/2 that a choice is a tried one: after n further choices it is
/// 1/2 to the power of n + 1.
#[test]
fn with_a_number_of_choices_the_last_one_stands_whatever_it_is() {
    let set = set(&[1, 1]);
    let tried = [set.endpoints[0].id];
    for (choices, expected) in [(0, 2000), (1, 1000), (2, 500), (3, 250), (60, 0)] {
        let context = PickContext { tried: &tried, further: Further::Choices(choices) };
        let mut picker = Picker::new(Balancer::Random, 7);
        let picks = (0..4000).filter(|_| picker.pick_with(&set, &context).unwrap().id == tried[0]);
        let (low, high) = (expected * 8 / 10, expected * 12 / 10);
        let count = picks.count();
        assert!((low..=high).contains(&count), "{choices}: {count}");
    }
    let all = [set.endpoints[0].id, set.endpoints[1].id];
    let context = PickContext { tried: &all, further: Further::Choices(3) };
    for policy in POLICIES {
        assert!(Picker::new(policy, 1).pick_with(&set, &context).is_some(), "{policy:?}");
    }
}

#[test]
fn round_robin_chooses_the_next_endpoint_when_the_first_choice_was_tried() {
    let set = set(&[1, 1, 1]);
    let mut picker = Picker::new(Balancer::RoundRobin, 1);
    for _ in 0..30 {
        let tried = [picker.pick(&set).unwrap().id];
        let context = PickContext { tried: &tried, further: Further::Choices(1) };
        assert_ne!(picker.pick_with(&set, &context).unwrap().id, tried[0]);
    }
}

#[test]
fn a_search_avoids_what_was_tried_as_long_as_it_can() {
    for policy in POLICIES {
        let set = set(&[100, 100, 1]);
        let mut picker = Picker::new(policy, 5);
        let tried = [set.endpoints[0].id, set.endpoints[1].id];
        for _ in 0..50 {
            assert_eq!(picker.pick_with(&set, &search(&tried)).unwrap().id, set.endpoints[2].id);
        }
        let all: Vec<u64> = set.endpoints.iter().map(|e| e.id).collect();
        assert!(picker.pick_with(&set, &search(&all)).is_some());
    }
}

#[test]
fn a_new_version_of_the_set_takes_effect_at_once() {
    for policy in POLICIES {
        let mut picker = Picker::new(policy, 5);
        count(&mut picker, &set(&[1, 2, 3]), 10);
        let counts = count(&mut picker, &set_with(&[1, 1], &[0, 0], 2), 1000);
        assert!(counts.iter().all(|count| *count > 300), "{policy:?} {counts:?}");
    }
}

#[test]
fn threads_do_not_all_start_at_the_same_endpoint() {
    for weights in [[1, 1, 1, 1], [1, 2, 3, 4]] {
        let set = set(&weights);
        let mut first = [0; 4];
        for seed in 0..64 {
            let picked = Picker::new(Balancer::RoundRobin, seed).pick(&set).unwrap();
            first[set.endpoints.iter().position(|e| e.id == picked.id).unwrap()] += 1;
        }
        assert!(first.iter().filter(|count| **count > 0).count() > 1, "{first:?}");
    }
}

proptest! {
    /// The picks repeat after Σw of them, so wherever a thread starts, every window of that
    /// length gives everybody its weight exactly.
    #[test]
    fn round_robin_keeps_the_exact_proportions(
        weights in prop::collection::vec(1_u32..50, 1..12),
        seed: u64,
    ) {
        let set = set(&weights);
        let mut picker = Picker::new(Balancer::RoundRobin, seed);
        let cycle: u32 = weights.iter().sum();
        let cycles = 4;
        let counts = count(&mut picker, &set, (cycle * cycles) as usize);
        for (count, endpoint) in counts.iter().zip(&set.endpoints) {
            prop_assert_eq!(*count, endpoint.info.weight * cycles);
        }
    }

    /// Within seven standard deviations of a binomial distribution.
    #[test]
    fn random_follows_the_weights(
        weights in prop::collection::vec(1_u32..20, 2..6),
        seed: u64,
    ) {
        const PICKS: u32 = 4000;
        let set = set(&weights);
        let counts = count(&mut Picker::new(Balancer::Random, seed), &set, PICKS as usize);
        let total = f64::from(weights.iter().sum::<u32>());
        for (count, endpoint) in counts.iter().zip(&set.endpoints) {
            let share = f64::from(endpoint.info.weight) / total;
            let expected = share * f64::from(PICKS);
            let deviation = (expected * (1.0 - share)).sqrt();
            prop_assert!((f64::from(*count) - expected).abs() <= 7.0 * deviation, "{counts:?}");
        }
    }

    /// The largest weights that exist neither overflow nor starve anybody for good.
    #[test]
    fn extreme_weights_are_survived(
        weights in prop::collection::vec(prop_oneof![Just(1_u32), Just(u32::MAX), any::<u32>()], 1..6),
        policy in 0_usize..3,
        seed: u64,
    ) {
        let set = set(&weights.iter().map(|weight| (*weight).max(1)).collect::<Vec<_>>());
        let counts = count(&mut Picker::new(POLICIES[policy], seed), &set, 200);
        prop_assert_eq!(counts.iter().sum::<u32>(), 200);
    }
}
