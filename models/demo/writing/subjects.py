"""What a page can be about: kinds, their names, their headings and the things they list."""

from collections.abc import Callable
from dataclasses import dataclass

from models.demo.writing.names import (
    ADJECTIVES,
    CITIES,
    COINED,
    NOUNS,
    PLACES,
    any_word,
    house,
    person,
)
from models.demo.writing.vocabulary import Draw, Pool, words


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One page's: `things` are what its lists and tables hold."""

    kind: str
    name: str
    headings: Pool  # of sections with a sentence
    lists: Pool  # of sections with a list
    tables: Pool  # of sections with a table
    things: Pool
    buttons: Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    kinds: Pool
    things: dict[str, str]  # kind → its things, with commas; a family's own under ""
    name: Callable[[Draw, str], str]
    headings: Pool
    lists: Pool
    tables: Pool
    buttons: Pool

    def draw(self, draw: Draw) -> Subject:
        kind = draw.one(self.kinds, unseen_share=0.5)
        return Subject(
            kind=kind,
            name=self.name(draw, kind),
            headings=self.headings,
            lists=self.lists,
            tables=self.tables,
            # Few, and new together with their kind: none is held out.
            things=Pool(seen=words(self.things.get(kind) or self.things[""]), unseen=()),
            buttons=self.buttons,
        )


def _pool(text: str) -> Pool:
    return Pool.of(words(text))


_SHOPS = {
    "bakery": "rye bread, apple cake, butter croissants, cinnamon rolls, oat cookies, plum tarts",
    "flower shop": "red roses, white lilies, tulip bouquets, dried flowers, potted herbs, orchids",
    "bookshop": "crime novels, picture books, travel guides, poetry, old maps, comics, cookbooks",
    "bicycle shop": "city bikes, racing bikes, helmets, repairs, spare tyres, bike lights, bells",
    "coffee shop": "espresso, oat milk latte, iced coffee, hot chocolate, carrot cake, green tea",
    "restaurant": "tomato soup, grilled fish, mushroom risotto, green salad, lemon tart, lamb stew",
    "pizzeria": "Margherita, Four Seasons, garlic bread, olive salad, tiramisu, Marinara, calzone",
    "hair salon": "haircuts, colouring, beard trims, washing, styling, braids, highlights",
    "toy shop": "wooden trains, puzzles, board games, teddy bears, kites, dolls, building blocks",
    "pet shop": "dog food, cat toys, fish tanks, bird cages, leashes, soft beds, rabbit hutches",
    "garden centre": "fruit trees, seeds, roses, watering cans, compost, garden tools, clay pots",
    "music shop": "guitars, violins, drums, sheet music, keyboards, repairs, flutes, lessons",
    "tea house": "green tea, jasmine tea, scones, sandwiches, honey cake, mint tea, black tea",
    "hotel": "single rooms, double rooms, breakfast, sauna, garden, bicycles, family rooms",
    "yoga studio": "morning yoga, yoga for beginners, breathing, meditation, evening stretch",
    "dentist": "check-ups, cleaning, fillings, braces, whitening, crowns, advice for children",
    "law firm": "family law, work contracts, wills, house purchase, company law, first advice",
    "car repair shop": "oil change, new tyres, brake service, inspection, paint work, car wash",
    "fish market": "fresh salmon, mussels, shrimps, smoked trout, cod, crab soup, sardines",
    "photo studio": "portraits, weddings, passport photos, family pictures, prints, frames",
    "ice cream parlour": "vanilla, chocolate, lemon sorbet, pistachio, mango, strawberry, hazelnut",
    "tailor": "suits, dresses, shirts, repairs, wedding gowns, hats, trousers, coats",
    "winery": "red wine, white wine, tastings, cellar tours, grape juice, sparkling wine",
    "cinema": "new films, children's films, film classics, popcorn, late shows, documentaries",
    "museum": "old paintings, coins, ship models, guided tours, maps, a roof garden, statues",
    "vegetable farm": "carrots, potatoes, fresh eggs, pumpkins, honey, lettuce, onions, beans",
    "furniture workshop": "oak tables, chairs, shelves, beds, cupboards, stools, desks, benches",
    "swimming pool": "swim lessons, water games, sauna, early swimming, diving, aqua fitness",
    "gym": "weight training, spinning, boxing, personal training, stretching, rowing",
    "travel agency": "city trips, hiking tours, train journeys, cruises, beach holidays, safaris",
    "cheese shop": "goat cheese, cheddar, blue cheese, fresh butter, brie, cheese boards",
    "computer repair service": "new screens, data rescue, virus removal, upgrades, printer setup",
}
_PEOPLE = {
    "photographer": "portraits, landscapes, weddings, street scenes, black and white prints",
    "architect": "family houses, school buildings, libraries, wooden bridges, city parks",
    "software developer": "Python, databases, web design, testing, mobile apps, Linux, Rust",
    "teacher": "mathematics, chemistry, school theatre, reading clubs, music, field trips",
    "illustrator": "picture books, posters, watercolours, comics, book covers, maps",
    "chef": "fish dishes, pastry, menus, cooking classes, spices, wild herbs",
    "journalist": "interviews, travel reports, science news, essays, radio, podcasts",
    "violinist": "concerts, chamber music, lessons, recordings, folk tunes, summer courses",
    "gardener": "rose gardens, ponds, hedges, roof gardens, vegetables, old trees",
    "translator": "novels, contracts, poems, subtitles, letters, technical manuals",
    "biologist": "field work, sea birds, statistics, microscopy, talks, insects",
    "carpenter": "stairs, kitchens, doors, window frames, oak floors, garden sheds",
    "data scientist": "statistics, charts, machine learning, surveys, Python, forecasts",
    "painter": "oil paintings, portraits, murals, sketches, landscapes, exhibitions",
    "nurse": "home care, first aid, night shifts, training, advice, vaccinations",
    "mountain guide": "glacier tours, ski trips, climbing, hut walks, snow safety, maps",
}
_EVENTS = {
    "book fair": "readings, book signing, poetry hour, used books, story time, panel talk",
    "jazz festival": "opening concert, big band night, jam session, piano solo, late show",
    "marathon": "children's run, half marathon, main race, warm up, prize giving",
    "science fair": "robot show, star gazing, chemistry lab, lectures, young inventors",
    "food festival": "street food, cooking show, cheese market, wine tasting, bread baking",
    "film festival": "opening film, short films, panel talk, award night, open air cinema",
    "flower show": "rose garden, garden tour, plant market, bouquet class, tulip parade",
    "chess tournament": "first round, second round, final, blitz games, prize giving",
    "craft market": "pottery, weaving, wood carving, candle making, jewellery, paper art",
    "music concert": "string quartet, choir, brass band, intermission, encore, organ music",
    "design conference": "keynote, workshops, coffee break, poster session, closing talk",
    "winter market": "hot punch, carol singing, wooden toys, gingerbread, light show",
    "wedding": "ceremony, garden party, dinner, first dance, fireworks, brunch",
    "charity run": "registration, warm up, five kilometre run, family walk, picnic",
}
_CLUBS = {
    "chess club": "beginners' evening, league games, blitz night, puzzles, summer camp",
    "hiking club": "forest walks, lake tours, mountain trips, map reading, picnics",
    "football club": "youth team, first team, summer cup, keeper training, fan day",
    "choir": "folk songs, church music, spring concert, voice training, choir trip",
    "rowing club": "morning rowing, boat care, regatta, beginners' course, river tour",
    "theatre group": "comedies, stage building, costumes, acting class, new plays",
    "astronomy club": "star nights, telescope building, planet talks, moon watching",
    "book club": "novels, reading evenings, author visits, short stories, classics",
    "gardening club": "seed exchange, rose care, garden visits, compost, harvest party",
    "animal shelter": "dogs, cats, rabbits, dog walking, adoption days, foster homes",
    "youth orchestra": "strings, brass, summer tour, rehearsals, chamber music",
    "photography club": "photo walks, portrait night, darkroom, exhibitions, contests",
    "cycling club": "Sunday rides, repair evening, hill climbs, night ride, kids' tour",
    "sailing club": "sailing course, boat care, summer regatta, knots, night sailing",
}
_DISHES = {
    "recipe": "flour, butter, two eggs, sugar, salt, milk, olive oil, fresh herbs, garlic, lemon",
    "soup recipe": "carrots, onions, potatoes, cream, pepper, leeks, stock, parsley, celery",
    "cake recipe": "flour, butter, three eggs, sugar, baking powder, vanilla, almonds, apples",
    "salad recipe": "lettuce, tomatoes, olives, lemon juice, cucumber, walnuts, feta, mint",
}
_DISH_NAMES = {
    "recipe": "Lemon Chicken, Vegetable Curry, Rice Pudding, Bean Stew, Potato Gratin, Fish Pie",
    "soup recipe": "Pumpkin Soup, Onion Soup, Lentil Soup, Mushroom Soup, Leek Soup, Pea Soup",
    "cake recipe": "Apple Cake, Carrot Cake, Almond Cake, Lemon Cake, Cherry Cake, Nut Cake",
    "salad recipe": "Greek Salad, Bean Salad, Pasta Salad, Beetroot Salad, Melon Salad",
}
_DISH_ADJECTIVES = _pool("Creamy, Simple, Grandma's, Classic, Quick, Spicy, Summer, Rustic, Sunday")
_PRODUCTS = {
    "note-taking app": "quick notes, shared lists, reminders, dark mode, voice notes, search",
    "photo app": "filters, albums, sharing, backups, collages, face search, printing",
    "language app": "daily lessons, word games, speaking practice, tests, flash cards",
    "budget app": "monthly plans, charts, savings goals, receipts, reminders, exports",
    "fitness tracker": "step counter, sleep report, heart rate, training plans, water proof",
    "calendar app": "shared dates, reminders, week view, birthdays, holidays, time zones",
    "weather service": "rain radar, storm alerts, week forecast, snow report, wind maps",
    "recipe app": "shopping lists, meal plans, timers, videos, favourites, vegan mode",
    "reading light": "warm light, long battery, soft clip, dimmer, USB charging",
    "smart lamp": "timers, colour modes, voice control, low power, sunrise mode",
    "travel app": "offline maps, train tickets, city guides, packing lists, translations",
    "music player": "playlists, radio, lyrics, sleep timer, offline songs, equaliser",
}
_TOPICS = _pool(
    "Painting, Astronomy, Pottery, Spanish, Statistics, Knitting, Chess, Botany, Photography, "
    "Bookkeeping, Piano, Woodwork, Geology, Creative Writing, Programming, Drawing, French, Yoga"
)
_LESSONS = {
    "online course": "first steps, tools, practice, small projects, common mistakes, final test",
    "evening class": "introduction, basic skills, group work, practice, exhibition, questions",
    "summer school": "morning lesson, field trip, group work, games, evening talk, final show",
}
_SIGHTS = {
    "": "the old bridge, the cathedral, the castle, the city museum, the harbour, the market hall, "
    "the botanical garden, the opera, the town hall, the river walk, the lighthouse, the old wall"
}


def _recipe_name(draw: Draw, kind: str) -> str:
    return f"{draw.one(_DISH_ADJECTIVES)} {draw.one(_pool(_DISH_NAMES[kind]))}"


def _event_name(draw: Draw, kind: str) -> str:
    if kind == "wedding":
        return f"{person(draw)} and {person(draw)}"
    first = draw.one(draw.rng.choice((PLACES, PLACES, CITIES)))
    season = draw.rng.choice(("", "", "Spring ", "Summer ", "Autumn "))
    if kind == "winter market":
        season = ""
    return f"{first} {season}{kind.title()}"


def _club_name(draw: Draw, kind: str) -> str:
    names = (draw.one(PLACES), f"{draw.one(ADJECTIVES)} {draw.one(NOUNS)}", any_word(draw))
    place = draw.rng.choice(names)
    return f"{place} {kind.title()}"


def _course_name(draw: Draw, kind: str) -> str:
    del kind
    topic = draw.one(_TOPICS)
    patterns = (
        "Introduction to {}",
        "{} for Beginners",
        "{} Step by Step",
        "Learn {}",
        "Joy of {}",
    )
    return draw.rng.choice(patterns).format(topic)


def _guide_name(draw: Draw, kind: str) -> str:
    del kind
    city = draw.one(CITIES)
    return draw.rng.choice(("Visit {}", "Welcome to {}", "Discover {}", "A Day in {}")).format(city)


_SHOP_HEADINGS = (
    "About Us, Our Story, Opening Hours, Contact, Gallery, News, Our Team, Find Us, "
    "Special Offers, Reviews, Delivery, Gift Cards, Workshops, Bookings, Careers, Questions, "
    "Our Mission, Partners, Newsletter, Parking"
)
_FAMILIES: tuple[tuple[_Family, int], ...] = (
    (_Family(
        kinds=Pool.of(_SHOPS), things=_SHOPS, name=house, headings=_pool(_SHOP_HEADINGS),
        lists=_pool("Menu, Products, Services, Our Favourites, What We Offer, This Week, Classics"),
        tables=_pool("Prices, Opening Hours, Price List, Our Prices"),
        buttons=_pool("Order now, Book a visit, Call us, Contact us, See more, Shop now, Reserve, "
                      "Get directions, Sign up, Write to us"),
    ), 8),
    (_Family(
        kinds=Pool.of(_PEOPLE), things=_PEOPLE, name=lambda draw, kind: person(draw),
        headings=_pool("About Me, Experience, Education, My Work, Awards, References, Contact Me, "
                       "My Blog, News, Gallery, Contact, Overview"),
        lists=_pool("Skills, Projects, Services, Interests, Portfolio, What I Do, Specialties"),
        tables=_pool("Prices, Price List, Fees"),
        buttons=_pool("Contact me, See my work, Hire me, Write to me, Read more, Say hello"),
    ), 4),
    (_Family(
        kinds=Pool.of(_EVENTS), things=_EVENTS, name=_event_name,
        headings=_pool("Venue, Tickets, Speakers, Getting There, Sponsors, Volunteers, Contact, "
                       "Registration, Food and Drink, For Families, News, Gallery, Parking, "
                       "Questions, Partners, Where to Stay"),
        lists=_pool("Highlights, Activities, On Stage, Events, What to Expect, Attractions"),
        tables=_pool("Programme, Timetable, Ticket Prices, Prices"),
        buttons=_pool("Buy tickets, Register now, Sign up, Join us, See the programme, Take part"),
    ), 4),
    (_Family(
        kinds=Pool.of(_CLUBS), things=_CLUBS, name=_club_name,
        headings=_pool("About Us, Join Us, Members, Committee, Results, Trips, Donate, News, "
                       "Gallery, Contact, Find Us, Our Story, Our Mission, Sponsors, Newsletter"),
        lists=_pool("Activities, Events, Groups, Courses, What We Do, Coming Up"),
        tables=_pool("Training Times, Fees, Timetable"),
        buttons=_pool("Join us, Become a member, Donate, Contact us, Sign up, Visit us"),
    ), 4),
    (_Family(
        kinds=Pool.of(_DISHES), things=_DISHES, name=_recipe_name,
        headings=_pool("Method, Tips, Serving, Storage, Variations, Overview, Reviews, History"),
        lists=_pool("Ingredients, Shopping List, You Need, What to Buy"),
        tables=_pool("Prices, Costs"),
        buttons=_pool("Print the recipe, Save the recipe, Share, Rate it, More recipes"),
    ), 2),
    (_Family(
        kinds=Pool.of(("travel guide", "city guide", "tourist office")), things=_SIGHTS,
        name=_guide_name,
        headings=_pool("History, Weather, Where to Stay, Local Food, Nightlife, Shopping, Tips, "
                       "Getting There, For Families, Gallery, Contact, Overview"),
        lists=_pool("Sights, Highlights, Must See, Day Trips, Top Places"),
        tables=_pool("Ticket Prices, Prices, Opening Hours"),
        buttons=_pool("Plan your trip, Book a room, See the map, Read more, Start here"),
    ), 3),
    (_Family(
        kinds=Pool.of(_PRODUCTS), things=_PRODUCTS, name=lambda draw, kind: draw.one(COINED),
        headings=_pool("Download, Support, How It Works, Security, Press, Roadmap, Reviews, "
                       "Our Story, Contact, Questions, Newsletter, Our Mission, Overview"),
        lists=_pool("Features, What You Get, Benefits, Highlights, Included"),
        tables=_pool("Pricing, Plans, Prices"),
        buttons=_pool("Download, Try it free, Get started, Buy now, Sign up, Learn more"),
    ), 4),
    (_Family(
        kinds=Pool.of(_LESSONS), things=_LESSONS, name=_course_name,
        headings=_pool("Teachers, Enrolment, Homework, Certificate, Overview, Contact, Questions, "
                       "Reviews, Find Us, Registration, News"),
        lists=_pool("Lessons, Contents, What You Learn, Modules, Chapters"),
        tables=_pool("Timetable, Fees, Prices"),
        buttons=_pool("Enrol now, Sign up, Start today, Ask a question, Join the class"),
    ), 3),
)  # fmt: skip


def draw_subject(draw: Draw) -> Subject:
    families = [family for family, weight in _FAMILIES for _ in range(weight)]
    return draw.rng.choice(families).draw(draw)
