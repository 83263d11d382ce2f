-- The pose behind each frame, as the client draws it: the server learns of it only a packet later.
-- One line of the log per frame, which neuralsim reads from the game's standard error. (What `print` says would be
-- drawn over the picture.)
minetest.register_globalstep(function()
	local player, camera = minetest.localplayer, minetest.camera
	if not player or not camera then
		return
	end
	local pos, velocity = player:get_pos(), player:get_velocity()
	-- The player's own look is that of the frame before; the camera's is that of the picture.
	minetest.log("action", ("neuralsim-pose %.6f %.6f %.6f %.6f %.6f %.6f %.6f %.6f"):format(
		pos.x, pos.y, pos.z, velocity.x, velocity.y, velocity.z,
		camera:get_look_horizontal(), camera:get_look_vertical()))
end)
