"""The questions of the suite `questions`: the data, the answers by hand, and the ways they are asked."""
