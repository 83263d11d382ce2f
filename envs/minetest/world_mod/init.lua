-- The server's side: where an episode begins, what pays, and what is true.
--
-- At the end of each server step a line of JSON goes to the shim, which hands it on with the next frame. Until the
-- player stands where the episode begins, it says "ready": false.

local insecure = minetest.request_insecure_environment()
if not insecure then
	error("neuralsim: the setting secure.trusted_mods does not name this mod")
end
local have_ffi, ffi = pcall(insecure.require, "ffi")
if not have_ffi then
	error("neuralsim: this Minetest was built without LuaJIT, which the lock-step needs")
end
ffi.cdef("int neuralsim_server_stepped(double seconds, const char *says, int bytes);")
local shim = ffi.C

local function setting(name)
	return minetest.settings:get("neuralsim_" .. name)
end

local TASK = setting("task")
local GOAL_DISTANCE = tonumber(setting("goal_distance"))
local SHOW_HUD = setting("hud") == "true"
local TRIES = 40 -- places looked at for a start before the last one is taken as it is
local REACHED = 2.5 -- nodes from the goal, horizontally

local TOOLS = {
	treechop = {"default:axe_steel"},
	dig = {"default:pick_diamond", "default:shovel_diamond", "default:axe_diamond"},
	navigate = {},
	explore = {
		"default:pick_steel", "default:shovel_steel", "default:axe_steel", "default:dirt 99", "default:cobble 99",
	},
}
local FORESTS = {deciduous_forest = true, coniferous_forest = true}

local seed = minetest.get_mapgen_setting("seed")
-- The generator takes a number: the last nine digits of the seed.
local random = PcgRandom(tonumber(seed:sub(-9)) or 0)
local state = {seed = seed, ready = false, reward = 0, done = false, dug = 0}
local goal, tree

-- Nothing is written over the picture.
minetest.send_join_message = function() end
minetest.send_leave_message = function() end
minetest.get_server_status = function() return "" end
minetest.chat_send_all = function() end
minetest.chat_send_player = function() end

local function walkable(pos)
	local definition = minetest.registered_nodes[minetest.get_node(pos).name]
	return definition and definition.walkable
end

local function is_in_group(pos, group)
	return minetest.get_item_group(minetest.get_node(pos).name, group) > 0
end

-- The place to stand at (x, z), near the height y: firm ground that is no tree, with air to breathe above it.
local function ground(x, y, z)
	for height = y + 12, y - 12, -1 do
		local below = {x = x, y = height - 1, z = z}
		local feet, head = {x = x, y = height, z = z}, {x = x, y = height + 1, z = z}
		if walkable(below) and not walkable(feet) and not walkable(head)
				and not is_in_group(below, "leaves") and not is_in_group(below, "tree")
				and not is_in_group(feet, "liquid") and not is_in_group(head, "liquid") then
			return feet
		end
	end
end

local function suits(pos)
	local biome = minetest.get_biome_data(pos)
	local name = biome and minetest.get_biome_name(biome.biome) or ""
	if TASK == "treechop" then
		return FORESTS[name]
	end
	return not name:find("rainforest") -- jungles are slow to draw
end

-- A place on dry land in a biome that suits the task; mapgen tells both before the land is made.
local function candidate()
	local last = {x = 0, y = 10, z = 0}
	for _ = 1, 600 do
		local x, z = random:next(-1500, 1500), random:next(-1500, 1500)
		local y = minetest.get_spawn_level(x, z)
		if y then
			last = {x = x, y = y, z = z}
			if suits(last) then
				return last
			end
		end
	end
	return last
end

local function emerge(center, radius, after)
	local reach = {x = radius, y = 20, z = radius}
	minetest.emerge_area(vector.subtract(center, reach), vector.add(center, reach), function(_, _, left)
		if left == 0 then
			after()
		end
	end)
end

local function nearest_tree(pos)
	return minetest.find_node_near(pos, 12, "group:tree", true)
end

local function begin(player, feet)
	player:set_pos({x = feet.x, y = feet.y - 0.5, z = feet.z})
	player:set_look_vertical(0)
	player:set_look_horizontal(math.rad(random:next(0, 359)))
	state.ready = true
end

-- Puts up the goal: a column of diamond blocks that stands out of any grass.
local function put_goal(feet)
	for height = 0, 3 do
		minetest.set_node({x = feet.x, y = feet.y + height, z = feet.z}, {name = "default:diamondblock"})
	end
	goal = feet
end

local function start(player, tries)
	local center = candidate()
	emerge(center, 24, function()
		local feet = ground(center.x, center.y, center.z)
		if TASK == "treechop" and feet then
			tree = nearest_tree(feet)
		end
		local fits = feet and (TASK ~= "treechop" or tree)
		if not fits and tries > 1 then
			return start(player, tries - 1)
		end
		feet = feet or {x = center.x, y = center.y + 1, z = center.z}
		if TASK ~= "navigate" then
			return begin(player, feet)
		end
		local angle = math.rad(random:next(0, 359))
		local x = math.floor(feet.x + GOAL_DISTANCE * math.sin(angle) + 0.5)
		local z = math.floor(feet.z + GOAL_DISTANCE * math.cos(angle) + 0.5)
		local level = minetest.get_spawn_level(x, z)
		if not level and tries > 1 then -- in the sea
			return start(player, tries - 1)
		end
		emerge({x = x, y = level or feet.y, z = z}, 4, function()
			put_goal(ground(x, level or feet.y, z) or {x = x, y = level or feet.y, z = z})
			begin(player, feet)
		end)
	end)
end

minetest.register_on_joinplayer(function(player)
	minetest.set_timeofday(0.5)
	player:hud_set_flags({
		hotbar = SHOW_HUD, crosshair = SHOW_HUD, wielditem = SHOW_HUD,
		healthbar = false, breathbar = false, minimap = false, minimap_radar = false,
	})
	player:hud_set_hotbar_itemcount(9)
	local inventory = player:get_inventory()
	inventory:set_list("main", {})
	for _, item in ipairs(TOOLS[TASK]) do
		inventory:add_item("main", item)
	end
	start(player, TRIES)
end)

minetest.register_on_dignode(function(_, node)
	state.dug = state.dug + 1
	if TASK == "dig" then
		state.reward = state.reward + 1
	elseif TASK == "treechop" and minetest.get_item_group(node.name, "tree") > 0 then
		state.reward = state.reward + 1
	end
end)

local function inventory_of(player)
	local counts = {}
	for _, stack in ipairs(player:get_inventory():get_list("main")) do
		if not stack:is_empty() then
			local name = stack:get_name()
			counts[name] = (counts[name] or 0) + stack:get_count()
		end
	end
	return counts
end

local sprinting, dug_then, steps = false, 0, 0

local function look_after(player)
	-- Sprinting is Minecraft's: 1.3 times as fast, and only forward.
	local control = player:get_player_control()
	local sprints = control.aux1 and control.up
	if sprints ~= sprinting then
		sprinting = sprints
		player:set_physics_override({speed = sprints and 1.3 or 1})
	end
	local pos = player:get_pos()
	if TASK == "navigate" and goal and not state.done then
		if math.sqrt((pos.x - goal.x) ^ 2 + (pos.z - goal.z) ^ 2) <= REACHED then
			state.reward, state.done = 100, true
		end
	elseif (TASK == "treechop" or TASK == "explore") and state.ready and (state.dug ~= dug_then or steps % 20 == 0) then
		dug_then, tree = state.dug, nearest_tree(pos)
	end
	local target = goal or tree
	state.target = target and {target.x, target.y, target.z}
	state.server_position = {pos.x, pos.y, pos.z}
	state.inventory = inventory_of(player)
end

minetest.register_globalstep(function(seconds)
	steps = steps + 1
	local player = minetest.get_connected_players()[1]
	if player then
		look_after(player)
	end
	local says = minetest.write_json(state)
	if shim.neuralsim_server_stepped(seconds, says, #says) ~= 0 then
		error("neuralsim: the shim refused " .. says)
	end
end)
