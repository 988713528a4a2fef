"""Titles of articles and, for each, the headings and what each paragraph is to be about.

A family of topics shares its titles and headings, worded so that they fit every topic of the
family in singular and plural. The paragraphs themselves come from SmolLM2 (`drafts`).
"""

from dataclasses import dataclass

from models.demo.writing.vocabulary import EVALUATION_SEEDS, Draw, Pool, words

_NUM_SECTIONS = 4  # drafted for each title; two or three of the good ones are kept

WRITE_PROMPTS = Pool.of((
    "Please write a blog based on the title: {title}",
    "Please write an article based on the title: {title}",
    "Write a short article with the title: {title}",
    'Write an article titled "{title}".',
    "Write a blog post: {title}",
    "Please write a short blog post with the title {title}.",
    "Title: {title}. Write the article.",
    "{title}",
    "I need a short text with headings about this: {title}",
    "Compose a short article entitled {title}.",
    'Write about "{title}".',
    "Create a structured article: {title}",
    "Can you write an article for me? The title is {title}.",
    "Draft a blog article named {title}.",
), common=("{title}", "Please write a blog based on the title: {title}"))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Paragraph:
    """`about` completes "Write two sentences about …"; no heading: it opens or ends."""

    topic: str
    heading: str = ""
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArticlePlan:
    title: str
    opening: Paragraph
    sections: tuple[Paragraph, ...]
    ending: Paragraph


@dataclass(frozen=True, slots=True, kw_only=True)
class ArticleTask:
    """What is asked in an evaluation."""

    prompt: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    topics: Pool
    titles: Pool  # {T}: the topic in title case
    sections: tuple[tuple[str, str], ...]  # heading and what it is about; {t}: the topic
    opening: str
    ending: str


_FAMILIES: tuple[_Family, ...] = (
    _Family(
        topics=Pool.of(words("""
            French pastries, green tea, dark chocolate, sourdough bread, olive oil, fresh pasta
            homemade soup, goat cheese, wild mushrooms, apple pie, black coffee, honey, sea salt
            pancakes, roasted vegetables, tomato sauce, rice dishes, summer berries, street food
            lemon cake, spicy curry, garden herbs, breakfast cereals, ice cream, grilled fish
            pickled cucumbers, fruit salads, potato dishes, cinnamon rolls, peanut butter, dumplings
            Italian pizza, maple syrup, oatmeal, vegetable stews, almond cookies, mint tea, noodles
            strawberry jam, pumpkin bread, coconut milk, roasted nuts, cherry tarts, bean salads
            """)),
        titles=Pool.of((
            "{T}: A Taste Worth Sharing", "A Short History of {T}", "Why We Love {T}",
            "Enjoying {T} at Home", "The Story of {T}", "{T}: A Beginner's Guide",
            "The Simple Joy of {T}", "{T} for Every Day", "All About {T}", "In Praise of {T}",
            "{T}: A Sweet Indulgence", "The Secret of Good {T}",
        )),
        sections=(
            ("A Look at the Past", "the history of {t}"),
            ("The Taste of {T}", "the taste of {t}"),
            ("Choosing Good {T}", "choosing good {t}"),
            ("{T} at Home", "making {t} at home"),
            ("Why People Love {T}", "why people love {t}"),
            ("Sharing with Friends", "enjoying {t} with friends and family"),
            ("{T} Around the World", "{t} in different countries"),
            ("Good Companions", "food and drinks that go well with {t}"),
        ),
        opening="{t} and its place in the kitchen",
        ending="why {t} will always be loved",
    ),
    _Family(
        topics=Pool.of(words("""
            hiking, knitting, swimming, gardening, photography, cycling, painting, bird watching
            baking, reading, yoga, chess, running, dancing, camping, sailing, playing the piano
            learning Spanish, cooking, fishing, pottery, star gazing, skiing, singing, meditation
            woodworking, walking, juggling, writing a diary, playing the guitar, horse riding
            climbing, volunteering, drawing, sewing, travelling by train, rowing, beekeeping
            collecting stamps, learning French, public speaking, early rising, origami, tennis
            table tennis, keeping an aquarium, calligraphy, puzzle solving, surfing, archery
            """)),
        titles=Pool.of((
            "The Benefits of {T}", "{T} for Beginners", "A Beginner's Guide to {T}",
            "The Joy of {T}", "Why {T} Is Good for You", "Five Tips for {T}", "Discovering {T}",
            "{T}: A Hobby for Life", "Getting Started with {T}", "What {T} Teaches Us",
            "How {T} Makes Life Better", "{T} at Any Age",
        )),
        sections=(
            ("Good for Body and Mind", "how {t} is good for body and mind"),
            ("Getting Started", "how to get started with {t}"),
            ("What You Need", "the equipment you need for {t}"),
            ("Common Mistakes", "common mistakes of beginners in {t}"),
            ("{T} with Friends", "{t} together with friends"),
            ("Finding the Time", "finding time for {t} every week"),
            ("Learning Step by Step", "learning {t} step by step"),
            ("Staying Motivated", "staying motivated in {t}"),
        ),
        opening="{t} as a hobby",
        ending="why {t} is worth the effort",
    ),
    _Family(
        topics=Pool.of(words("""
            lighthouses, honey bees, old bridges, libraries, volcanoes, dolphins, bicycles, clouds
            rainforests, jazz music, castles, owls, steam trains, rivers, butterflies, museums
            coral reefs, printed books, wind energy, elephants, deserts, fairy tales, wolves, maps
            public parks, penguins, glaciers, violins, whales, solar power, oak trees, telescopes
            city gardens, sailing ships, spiders, thunderstorms, wooden toys, robots, windmills
            folk songs, theatres, sea turtles, markets, clocks, horses, bamboo, postcards, comets
            ancient temples, electric cars, board games, village schools, waterfalls, songbirds
            hot air balloons, roses, canals, kites, photographs, earthworms, rainbows, submarines
            """)),
        titles=Pool.of((
            "A Short History of {T}", "The World of {T}", "Why We Need {T}",
            "{T}: Past and Present",
            "What We Can Learn from {T}", "The Beauty of {T}", "The Secret Life of {T}",
            "{T} and Us", "Understanding {T}", "An Introduction to {T}", "The Magic of {T}",
            "Looking Closely at {T}",
        )),
        sections=(
            ("A Long History", "the history of {t}"),
            ("Why {T} Matter", "why {t} are important"),
            ("The Beauty of {T}", "the beauty of {t}"),
            ("{T} Today", "{t} today"),
            ("The Future of {T}", "the future of {t}"),
            ("What They Teach Us", "what people can learn from {t}"),
            ("Seeing Them Up Close", "where people can see {t}"),
            ("Facts to Remember", "an interesting fact about {t}"),
        ),
        opening="{t}",
        ending="why {t} are fascinating",
    ),
    _Family(
        topics=Pool.of(words("""
            growing tomatoes on a balcony, saving energy at home, writing a good letter
            baking bread, packing for a journey, learning new words, keeping a tidy desk
            caring for roses, planning a birthday party, taking better photographs
            sleeping well, making new friends, cooking for a family, teaching a dog to sit
            building a bird house, preparing for an exam, saving money every month
            painting a room, choosing a bicycle, keeping houseplants alive, telling a good story
            reading more books, organising a kitchen, cleaning windows, sharpening a knife
            starting a vegetable garden, repairing a bicycle, making compost, giving a speech
            finding a flat, moving to a new city, drinking more water, using less plastic
            learning a musical instrument, training for a long run, choosing a good gift
            preparing a picnic, keeping a cat happy, planning a hike, growing herbs in the kitchen
            """)),
        titles=Pool.of((
            "{T}: A Simple Guide", "Tips for {T}", "The Art of {T}", "{T} Step by Step",
            "{T} Made Easy", "Five Secrets of {T}", "First Steps in {T}", "{T} Without Stress",
            "{T}: What Really Helps", "A Practical Guide to {T}",
        )),
        sections=(
            ("Before You Start", "how to prepare for {t}"),
            ("Step by Step", "the most important steps of {t}"),
            ("Common Mistakes", "common mistakes when {t}"),
            ("Tips for Success", "good advice for {t}"),
            ("What You Need", "the things you need for {t}"),
            ("Why It Is Worth It", "why {t} is worth the effort"),
            ("Taking Your Time", "why patience helps with {t}"),
        ),
        opening="{t}",
        ending="how good it feels to succeed in {t}",
    ),
)  # fmt: skip
_SMALL_WORDS = frozenset(words("a, an, and, at, by, for, from, in, of, on, or, the, to, with"))


def all_paragraphs() -> list[Paragraph]:
    """Every paragraph that a plan of a training seed can ask for."""
    return [
        _paragraph(topic, about=about, heading=heading)
        for family in _FAMILIES
        for topic in family.topics.seen
        for heading, about in (("", family.opening), *family.sections, ("", family.ending))
    ]


def draw_plan(seed: int) -> ArticlePlan:
    """A title with more headings than its article will have."""
    return _plan(Draw(seed))


def draw_article_task(seed: int) -> ArticleTask:
    draw = Draw(seed)
    title = _plan(draw).title
    prompt = draw.one(WRITE_PROMPTS, unseen_share=0.5)
    return ArticleTask(prompt=prompt.format(title=title), title=title)


def _plan(draw: Draw) -> ArticlePlan:
    if draw.is_evaluation:
        family, topic, title = _in_turn(draw.seed - EVALUATION_SEEDS.start)
    else:
        family = draw.rng.choice(_FAMILIES)
        topic, title = draw.one(family.topics), draw.one(family.titles)
    chosen = sorted(draw.rng.sample(range(len(family.sections)), _NUM_SECTIONS))
    return ArticlePlan(
        title=title.format(T=_title_case(topic)),
        opening=_paragraph(topic, about=family.opening),
        sections=tuple(
            _paragraph(topic, about=about, heading=heading)
            for heading, about in (family.sections[index] for index in chosen)
        ),
        ending=_paragraph(topic, about=family.ending),
    )


def _in_turn(turn: int) -> tuple[_Family, str, str]:
    """The held-out topics one after the other, so that seeds in a row ask for different titles."""
    topics = [(family, topic) for family in _FAMILIES for topic in family.topics.unseen]
    rounds, place = divmod(turn, len(topics))
    family, topic = topics[place]
    titles = (*family.titles.unseen, *family.titles.seen)
    return family, topic, titles[(place + rounds) % len(titles)]


def _paragraph(topic: str, *, about: str, heading: str = "") -> Paragraph:
    forms = {"t": topic, "T": _title_case(topic)}
    return Paragraph(topic=topic, heading=heading.format(**forms), about=about.format(**forms))


def _title_case(topic: str) -> str:
    first, *rest = topic.split()
    return " ".join(
        (
            first[0].upper() + first[1:],
            *(word if word in _SMALL_WORDS else word[0].upper() + word[1:] for word in rest),
        )
    )
