//! A city with an illness: what is simulated. Knows nothing of sessions.

use segvm::{Persist, Vec};

/// Districts lie in a ring; the last one is a neighbour of the first.
const DISTRICTS: usize = 4096;

#[derive(Persist)]
#[repr(C)]
pub(crate) struct City {
    pub(crate) day: u64,
    /// What was given up for the rules so far, in days of one person.
    pub(crate) cost: f64,
    /// The most that were ill on one day.
    pub(crate) peak: f64,
    pub(crate) districts: Vec<District>,
}

#[derive(Persist, Clone, Copy)]
#[persist(plain)]
#[repr(C)]
pub(crate) struct District {
    well: f64,
    ill: f64,
}

/// What is done about it.
#[derive(Clone, Copy)]
pub(crate) struct Policy {
    pub(crate) name: &'static str,
    /// How many an ill person meets and infects a day.
    meets: f64,
    /// What it costs each person a day.
    costs: f64,
}

pub(crate) const POLICIES: [Policy; 3] = [
    Policy {
        name: "nothing",
        meets: 0.30,
        costs: 0.0,
    },
    Policy {
        name: "masks",
        meets: 0.17,
        costs: 0.01,
    },
    Policy {
        name: "closed",
        meets: 0.08,
        costs: 0.30,
    },
];

/// Part of the ill who are well or dead the next day.
const ENDS: f64 = 0.1;
const PEOPLE: f64 = 1000.0;

impl City {
    /// Moves people in, and one of them is ill.
    pub(crate) fn found(city: &mut CityMut<'_>) {
        let well = District {
            well: PEOPLE,
            ill: 0.0,
        };
        city.districts.resize(DISTRICTS, well);
        if let Some(first) = city.districts.as_mut_slice().first_mut() {
            first.ill = 1.0;
        }
    }

    pub(crate) fn one_day(city: &mut CityMut<'_>, policy: &Policy) {
        let districts = city.districts.as_mut_slice();
        let before = districts.to_vec();
        let mut ill = 0.0;
        for (at, district) in districts.iter_mut().enumerate() {
            let next_to = |step: usize| before.get((at + step) % before.len());
            let near = [next_to(before.len() - 1), next_to(1)];
            let near: f64 = near.into_iter().flatten().map(|other| other.ill).sum();
            let meets = 0.9 * district.ill + 0.05 * near;
            let new = (policy.meets * meets * district.well / PEOPLE).min(district.well);
            district.well -= new;
            district.ill += new - ENDS * district.ill;
            ill += district.ill;
        }
        *city.day += 1;
        *city.cost += policy.costs * PEOPLE * DISTRICTS as f64;
        *city.peak = city.peak.max(ill);
    }

    /// How many had it.
    pub(crate) fn had_it(&self) -> f64 {
        let well: f64 = self.districts.iter().map(|district| district.well).sum();
        PEOPLE * DISTRICTS as f64 - well
    }

    /// What all of it comes to: an illness is taken for ten lost days.
    pub(crate) fn toll(&self) -> f64 {
        10.0 * self.had_it() + self.cost
    }
}
