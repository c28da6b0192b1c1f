"""Any valid passenger, for hypothesis."""

from hypothesis import strategies as st

from tests.titanic import Passenger

TEXT = st.none() | st.text(max_size=50)
PASSENGERS = st.builds(
    Passenger, pclass=st.sampled_from([1, 2, 3]), sex=st.sampled_from(["male", "female"]), name=TEXT, ticket=TEXT,
    cabin=TEXT, age=st.none() | st.floats(0, 120), fare=st.none() | st.floats(0, 1000),
    sibsp=st.none() | st.integers(0, 20), parch=st.none() | st.integers(0, 20),
    embarked=st.sampled_from([None, "S", "C", "Q"]),
)  # fmt: skip
