"""The sentences people type, with gaps: `{x}`, `{a}`, `{b}` for things, `{all}` for a group."""

from __future__ import annotations

from training.heldout.facts import Extreme

SINGLE = (
    "{x}",
    "Segment {x}.",
    "please segment {x}",
    "Could you segment {x} for me?",
    "Please show me {x}.",
    "I need a mask of {x}.",
    "Mark {x}, please.",
    "Find {x} and mark it.",
    "Where is {x}? Please mark it.",
    "Outline {x}.",
    "Can you highlight {x}?",
    "Give me the mask for {x}.",
    "Select {x}.",
    "Point out {x} in this picture.",
    "I'm looking for {x}.",
    "Locate {x} in the image.",
    "Mask {x}, nothing else.",
    "Pick out {x}.",
    "Which part of the image is {x}?",
    "Cut out {x}.",
    "Would you mark every pixel of {x}?",
    "I want only {x}.",
    "Draw a mask over {x}.",
    "Show where {x} is.",
    "Look at the picture and segment {x}.",
    "In this image, select {x}.",
    "My request: a mask for {x}.",
    "Return the segmentation of {x}.",
    "Help me find {x}.",
    "Which pixels belong to {x}?",
    "Trace {x} for me.",
    "Just {x}, please.",
)

TWO = (
    "{a} and {b}",
    "Segment {a} and {b}.",
    "please segment {a} and also {b}",
    "Mark {a}, then {b}.",
    "I need two masks: {a} and {b}.",
    "First {a}, then {b}.",
    "Can you show me {a} and {b}?",
    "Find both {a} and {b}.",
    "Give me {a} as well as {b}.",
    "Outline {a}, and after that {b}.",
    "Highlight {a} and {b}, please.",
    "Where are {a} and {b}? Mark each of them.",
    "Select {a} together with {b}, one mask each.",
    "Could you segment {a} and {b} separately?",
    "Mask {a}. Mask {b} too.",
    "Please locate {a} and {b} in the image.",
    "Pick out {a} and {b}.",
    "One mask for {a} and one for {b}.",
    "I'm looking for {a} and {b}.",
    "Point out {a} and {b} in this picture.",
    "Show {a}, and {b} as well.",
    "Two things, please: {a}, and {b}.",
    "Return the masks of {a} and {b}.",
    "In this image, mark {a} and {b}.",
)

GROUP = (
    "{all}",
    "Segment {all}.",
    "please segment {all}",
    "Mark {all}.",
    "I need one mask for {all}.",
    "Show me {all}.",
    "Can you highlight {all}?",
    "Find {all} and mask them together.",
    "Select {all}, please.",
    "Give me a mask that covers {all}.",
    "Outline {all}.",
    "Could you mark {all} for me?",
    "Pick out {all}.",
    "Mask {all} in this picture.",
    "Point out {all}.",
    "Please locate {all} in the image.",
    "Cut out {all}.",
    "I want {all} in a single mask.",
    "Return the segmentation of {all}.",
    "Draw a mask over {all}.",
    "In this image, select {all}.",
    "Take {all} and make one mask.",
)

WHOLE_COLOUR = (
    "everything that is {colour}",
    "everything {colour}",
    "whatever is {colour}",
    "all that is {colour}",
)
WHOLE_PLURAL = ("all the {many}", "all {many}", "all of the {many}", "every {one}", "every single {one}")

CLIP_ONLY = (
    "Follow {x} through the video.",
    "Track {x}.",
    "Segment {x} in every frame.",
    "please track {x} throughout the clip",
    "Keep a mask on {x} for the whole video.",
    "Can you follow {x} in this clip?",
)

HOW_MANY = (
    "How many {many} are there?",
    "how many {many} do you see",
    "Count the {many}.",
    "What is the number of {many} in the image?",
    "How many {many} does the picture show?",
    "Tell me how many {many} there are.",
    "Can you count the {many}?",
    "I'd like to know how many {many} are in this picture.",
)
WHAT_COLOUR = (
    "What {colour} is {x}?",
    "which {colour} does {x} have",
    "Tell me the {colour} of {x}.",
    "{x} - what {colour} is it?",
    "What is the {colour} of {x}?",
    "Name the {colour} of {x}.",
)
WHAT_SHAPE = (
    "What shape is {x}?",
    "which shape does {x} have",
    "Tell me the shape of {x}.",
    "What kind of shape is {x}?",
    "Name the shape of {x}.",
)
IS_THERE = (
    "Is there {some} in the picture?",
    "is there {some} here",
    "Can you see {some}? Yes or no.",
    "Does the image show {some}?",
    "Do you see {some} anywhere?",
    "Yes or no: is there {some}?",
)

THING_WORDS = ("thing", "shape", "object")

AMONG_MANY: dict[Extreme, tuple[str, ...]] = {
    "largest": ("the largest {one}", "the biggest {one}"),
    "smallest": ("the smallest {one}", "the smallest of the {many}"),
    "left": ("the leftmost {one}", "the {one} on the far left", "the {one} furthest to the left"),
    "right": ("the rightmost {one}", "the {one} on the far right", "the {one} furthest to the right"),
    "top": ("the topmost {one}", "the highest {one}", "the {one} nearest the top"),
    "bottom": ("the lowest {one}", "the {one} nearest the bottom", "the {one} furthest down"),
}
"""Any number of candidates."""

BETWEEN_TWO: dict[Extreme, tuple[str, ...]] = {
    "largest": ("the larger {one}", "the bigger {one}", "the bigger of the two {many}"),
    "smallest": ("the smaller {one}", "the smaller of the two {many}"),
    "left": ("the {one} on the left", "the left {one}", "the {one} to the left"),
    "right": ("the {one} on the right", "the right {one}", "the {one} to the right"),
    "top": ("the upper {one}", "the {one} at the top", "the higher {one}"),
    "bottom": ("the lower {one}", "the {one} at the bottom", "the lower of the two {many}"),
}
"""Only when there are exactly two candidates."""
