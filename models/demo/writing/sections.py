"""What stands in the sections of a page: a sentence, a list or a table, by the section's name.

The sentences are plain and short on purpose: an adapter of rank four shall learn how pages are
built, and that a text belongs to its heading.
"""

from dataclasses import dataclass

from models.demo.writing.names import ADJECTIVES, NOUNS, any_word
from models.demo.writing.vocabulary import Draw, Pool, words


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading and, under it, exactly one of a sentence, list items, or rows of two cells."""

    heading: str
    text: str = ""
    items: tuple[str, ...] = ()
    rows: tuple[tuple[str, str], ...] = ()


# Sentences by heading. {name} is the page's title, {kind} what it is about.
_SENTENCES: dict[str, tuple[str, ...]] = {
    "About Us": ("{name} is a {kind} run by people who love their work.",
                 "We are a small {kind} with a warm welcome for everyone."),
    "Our Story": ("{name} began with one idea and a lot of patience.",
                  "Our {kind} opened many years ago and is still growing."),
    "Opening Hours": ("We are open from Monday to Saturday, 9 am to 6 pm.",
                      "Open every day from 8 am to 5 pm."),
    "Contact": ("Write to us at any time, and we will answer within a day.",
                "Send us a message and we will call you back soon."),
    "Gallery": ("See pictures of our favourite moments here.",
                "New photographs are added to this page every week."),
    "News": ("The latest news from {name} appears here first.",
             "Come back every week to read what is new."),
    "Our Team": ("Our friendly team is here to help you every day.",
                 "Five people with many years of experience work at {name}."),
    "Find Us": ("You find us in the centre of town, next to the old market.",
                "We are two minutes on foot from the main station."),
    "Special Offers": ("Ask about our special offers, which change every month.",
                       "This week every second item is half price."),
    "Reviews": ("Our visitors say that {name} is worth the journey.",
                "Five stars: friendly, quick and always good."),
    "Delivery": ("We deliver to your door within two days.",
                 "Delivery is free for every order in town."),
    "Gift Cards": ("A gift card from {name} makes anyone smile.",
                   "Our gift cards are valid for a whole year."),
    "Workshops": ("Join a workshop and learn something with your hands.",
                  "Our workshops take place every first Saturday."),
    "Bookings": ("Book your visit online or by telephone.",
                 "Please book two days before you come."),
    "Careers": ("We are looking for curious people to join {name}.",
                "Work with us: write and tell us about yourself."),
    "Questions": ("Here we answer the questions that people ask most.",
                  "Is your question not answered here? Just ask us."),
    "Our Mission": ("{name} wants to make every day a little better.",
                    "Our mission is honest work and happy people."),
    "Partners": ("We thank the partners who make our work possible.",
                 "{name} works together with many local partners."),
    "Newsletter": ("Our newsletter brings you good ideas once a month.",
                   "Leave your address and never miss any news."),
    "Parking": ("There is free parking behind the building.",
                "Please park in the side street next to us."),
    "About Me": ("I am {name}, and I work as a {kind}.",
                 "My name is {name} and I love being a {kind}."),
    "Experience": ("I have worked as a {kind} for more than ten years.",
                   "My experience comes from many large and small projects."),
    "Education": ("I studied in two countries and finished with honours.",
                  "I learned to be a {kind} at a small college by the sea."),
    "My Work": ("Here are some of the works I am proud of.",
                "My best work as a {kind} is collected on this page."),
    "Awards": ("My work has won prizes at home and abroad.",
               "In the last years I was honoured with three awards."),
    "References": ("Former clients are happy to speak about my work.",
                   "References are available on request."),
    "Contact Me": ("Write to me, and I will answer as soon as I can.",
                   "You can reach me by mail on every working day."),
    "My Blog": ("I write about the life of a {kind} every Sunday.",
                "My thoughts and notes appear in this blog."),
    "Venue": ("The {kind} takes place in the old town hall.",
              "Our venue is easy to reach and open to all."),
    "Tickets": ("Tickets are sold online and at the door.",
                "Get your ticket early, since places are limited."),
    "Speakers": ("Guests from many countries will speak this year.",
                 "Our speakers share what they know and love."),
    "Getting There": ("Take the train to the central station and walk five minutes.",
                      "Buses stop right in front of the door."),
    "Sponsors": ("We thank all sponsors who support the {kind}.",
                 "Without our sponsors, {name} could not take place."),
    "Volunteers": ("Volunteers are welcome: bring a friend and join us.",
                   "Help us for a day and see the {kind} from inside."),
    "Registration": ("Please register before the end of the month.",
                     "Registration is free and takes one minute."),
    "Food and Drink": ("Local food and cold drinks are sold all day.",
                       "Enjoy fresh food and drinks from the region."),
    "For Families": ("Children are welcome, and there is much to discover.",
                     "Families find games and a quiet corner here."),
    "Join Us": ("New members are welcome at any time.",
                "Come to one of our meetings and join the {kind}."),
    "Members": ("Our members come from all parts of the town.",
                "More than fifty members belong to {name}."),
    "Committee": ("The committee meets once a month and is elected each year.",
                  "Five members guide the {kind} as its committee."),
    "Results": ("The latest results of the {kind} are shown here.",
                "Last month was our best result so far."),
    "Trips": ("Twice a year we travel together.",
              "Our next trip leads us to the mountains."),
    "Donate": ("Every gift helps {name} to go on.",
               "Your donation supports our work for everyone."),
    "History": ("The history of {name} goes back many centuries.",
                "A long history has left its marks everywhere."),
    "Weather": ("Summers are warm, and winters are mild.",
                "Spring is the best time for a visit."),
    "Where to Stay": ("There are small hotels and quiet rooms for every purse.",
                      "Stay in the old town to be close to everything."),
    "Local Food": ("Try the local dishes in one of the small restaurants.",
                   "The food of {name} is simple, fresh and full of taste."),
    "Nightlife": ("Music and light fill the streets in the evening.",
                  "In the evening, people meet in the squares and bars."),
    "Shopping": ("Small shops and markets sell crafts and sweets.",
                 "The best shops are found in the narrow streets."),
    "Tips": ("Take your time, and everything will turn out well.",
             "Prepare everything before you start."),
    "Serving": ("Serve it warm and share it with friends.",
                "It tastes best on the day it is made."),
    "Storage": ("Keep it in a cool place for up to three days.",
                "Stored in the fridge, it stays good for two days."),
    "Variations": ("Try it with other spices or with fresh herbs.",
                   "Nuts or fruit make a fine change."),
    "Method": ("Mix everything well, then cook it slowly until it is done.",
               "Prepare, stir, wait and enjoy: it takes less than an hour."),
    "Download": ("Download {name} and start within a minute.",
                 "{name} is free for your phone and your computer."),
    "Support": ("Our support answers every question within a day.",
                "Do you need help? Our team is there for you."),
    "How It Works": ("Open {name}, choose what you need, and let it do the rest.",
                     "It takes three steps: sign in, choose, enjoy."),
    "Security": ("Your data stays yours and is kept safe.",
                 "{name} protects everything with strong encryption."),
    "Press": ("Newspapers write about {name} and its makers.",
              "Pictures and texts for the press are found here."),
    "Roadmap": ("New parts of {name} appear every month.",
                "This is what we plan for the coming year."),
    "Teachers": ("Our teachers are patient and know their subject well.",
                 "Two teachers guide you through the whole course."),
    "Enrolment": ("You can enrol until the first day of the course.",
                  "Enrolment is open to everyone who wants to learn."),
    "Homework": ("A small exercise after each lesson helps you to remember.",
                 "Homework takes about one hour a week."),
    "Certificate": ("At the end you receive a certificate.",
                    "Whoever finishes all lessons gets a certificate."),
    "Overview": ("This page tells you what {name} is about.",
                 "A short overview for everyone who is new here."),
}  # fmt: skip

# For headings that are put together and that nobody has written a sentence for.
_ANY_SENTENCES = (
    "Read all about {heading} here.",
    "Here you find our {heading} and more.",
    "At {name}, {heading} matter to everyone.",
    "Learn more about {heading} at {name}.",
)
_THINGS = Pool.of(
    words("""
    Ideas, Photos, Stories, Recipes, Events, Friends, Guides, Projects, Dates, Maps, Videos, Lessons
    Letters, Books, Plans, Walks, Songs, Awards, Rooms, Games, Memories, Secrets, Treasures, Places
    """)
)
_SEASONS = Pool.of(
    words(
        "Summer, Winter, Spring, Autumn, Local, Latest, Favourite, Family, Weekend, Holiday, Secret"
    )
)
_TIMES = words("8 am, 9 am, 10 am, 11 am, noon, 2 pm, 3 pm, 4 pm, 5 pm, 6 pm, 7 pm, 8 pm")
_HOURS = ("9 am to 5 pm", "8 am to 6 pm", "10 am to 4 pm", "9 am to 1 pm", "noon to 8 pm")
_DAYS = words("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
_TIME_TABLES = frozenset(("Timetable", "Programme", "Training Times"))


def invented_heading(draw: Draw) -> str:
    """Two words that were not written down together anywhere."""
    if draw.chance(0.4):
        return f"{any_word(draw)} {draw.one(_THINGS)}"
    first = draw.rng.choice((_SEASONS, _SEASONS, ADJECTIVES, NOUNS))
    return f"{draw.one(first)} {draw.one(_THINGS)}"


def sentence(draw: Draw, heading: str, *, name: str, kind: str) -> str:
    template = draw.rng.choice(_SENTENCES.get(heading, _ANY_SENTENCES))
    return template.format(name=name, kind=kind, heading=heading.lower())


def table(draw: Draw, heading: str, things: Pool) -> Section:
    """Two or three rows: hours by day, things by time of day, or prices by thing."""
    count = draw.rng.choice((2, 2, 3))
    if heading == "Opening Hours":
        days = sorted(draw.rng.sample(range(len(_DAYS)), count))
        rows = [(_DAYS[day], draw.rng.choice(_HOURS)) for day in days]
    elif heading in _TIME_TABLES:
        times = sorted(draw.rng.sample(range(len(_TIMES)), count))
        some = draw.some(things, count)
        rows = [(_TIMES[time], thing) for time, thing in zip(times, some, strict=True)]
    else:
        some = draw.some(things, count)
        rows = [(thing, f"${draw.rng.randrange(2, 60)}") for thing in some]
    return Section(heading=heading, rows=tuple(rows))
